"""From kernels in TIR to CUDA source, and how its functions are launched."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tvm import s_tir, tirx
from tvm.ir import GlobalVar, IRModule

from gsb_tvm.dialect.phases import STATE, SYNCHRONIZED
from gsb_tvm.runtime.codegen import children, lowering
from gsb_tvm.runtime.cuda.actions import WORD_BYTES
from gsb_tvm.runtime.cuda.loops import refined
from gsb_tvm.runtime.functions import allocated_bytes
from gsb_tvm.targets.profile import Profile


@dataclass(frozen=True)
class Argument:
    """A pointer that a function takes.

    ``kind`` is "tensor" with the number of a tensor of the kernel, "scratch" with an offset into
    what a call of the kernel may write, or "state" with an offset into what is zero before it.
    """

    kind: str
    at: int


@dataclass(frozen=True)
class Launch:
    """A function of the source, its blocks and threads (x, y, z), and its arguments.

    ``shared_bytes`` is what a block allocates of shared memory.
    """

    function: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[Argument, ...]
    shared_bytes: int


@dataclass(frozen=True)
class Kernel:
    """Launches of a kernel in order, and bytes of scratch and state that it uses."""

    launches: tuple[Launch, ...]
    scratch_bytes: int
    state_bytes: int


@dataclass(frozen=True)
class Kernels:
    """CUDA source of several kernels."""

    source: str
    kernels: Mapping[str, Kernel]


_NOT_FOR_OWN = (
    # Where a kernel says itself where threads wait, TVM shall not guess: it refuses conditions.
    "s_tir.ThreadSync",
    # Nor shall it give two buffers one place: it would, where one thread is done with the first
    # and others still read it.
    "tirx.StorageRewrite",
    # NVRTC does it as well, to the same machine code; TVM takes ten seconds for kernels that are
    # long.
    "tirx.CommonSubexprElim",
)
"""Passes of TVM that kernels written out for CUDA do without."""

_ALIGNMENT = 256  # of scratch: whole lines of the cache, whatever the buffer before it


def lower(functions: Mapping[str, Any], profile: Profile) -> Kernels:
    """CUDA source of the kernels ``functions``, and how each is launched.

    Parameters
    ----------
    functions
        Name -> PrimFunc with threads bound (:mod:`gsb_tvm.schedules.cuda.grid`).
    profile
        Of a CUDA target.
    """
    import tvm
    from tvm.tirx.compilation_pipeline import finalize_device_passes

    target = profile.tvm_target()
    opened = {name: _Opened(name, func) for name, func in functions.items()}
    # Of kernels that do not say where threads wait TVM finds it out, and how little of a buffer a
    # block needs.
    own = [name for name, func in functions.items() if SYNCHRONIZED in (func.attrs or {})]
    device, host = {}, {}
    for names, context in (
        (own, lowering(*_NOT_FOR_OWN)),
        (functions.keys() - set(own), tvm.transform.PassContext()),
    ):
        module = IRModule({GlobalVar(name): opened[name].func for name in sorted(names)})
        pipeline, _, _ = tirx.get_default_tir_pipeline(target)
        with context:
            lowered = pipeline(tirx.transform.BindTarget(target)(module))
        for variable, func in lowered.functions_items():
            if not _is_device(func):
                host[variable] = func
            else:
                device[variable] = func if names is own else refined(func)
    finished = finalize_device_passes()(IRModule(device))
    code = tvm.get_global_func("target.build.cuda")(finished, target)
    by_name = {variable.name_hint: func for variable, func in device.items()}
    kernels = {
        name: each.kernel(host[_variable(host, name)], by_name) for name, each in opened.items()
    }
    return Kernels(str(code.inspect_source("cuda")), kernels)


def _is_device(func: Any) -> bool:
    return "tirx.kernel_launch_params" in (func.attrs or {})


def _variable(functions: Mapping[GlobalVar, Any], name: str) -> GlobalVar:
    return next(variable for variable in functions if variable.name_hint == name)


class _Opened:
    """A kernel whose global allocations have become parameters."""

    def __init__(self, name: str, func: tirx.PrimFunc) -> None:
        found: list[Any] = []
        body = _without_global(func.body, found)
        self._tensors = [str(buffer.name) for buffer in func.params]
        self._places: dict[str, Argument] = {}
        self._scratch = self._state = 0
        for buffer in found:
            size = allocated_bytes(buffer)
            known = str(buffer.name)
            assert known not in {*self._tensors, *self._places}
            if known.startswith(STATE):
                self._places[known] = Argument("state", self._state)
                self._state += -(-size // WORD_BYTES) * WORD_BYTES
                continue
            self._places[known] = Argument("scratch", self._scratch)
            self._scratch += -(-size // _ALIGNMENT) * _ALIGNMENT
        for number, tensor in enumerate(self._tensors):
            self._places[tensor] = Argument("tensor", number)
        made = tirx.PrimFunc([*func.params, *found], body, func.ret_type)
        attributes = {"global_symbol": name, "tirx.noalias": True}
        self.func = made.with_attrs({**dict(func.attrs or {}), **attributes})

    def kernel(self, host: tirx.PrimFunc, device: Mapping[str, Any]) -> Kernel:
        """How ``host``, what became of the kernel, launches functions of ``device``."""
        launches = tuple(self._launch(call, device) for call in _launches(host.body))
        return Kernel(launches, self._scratch, self._state)

    def _launch(self, call: Any, device: Mapping[str, Any]) -> Launch:
        name = str(call.args[0].value)
        func = device[name]
        axes = [str(axis) for axis in func.attrs["tirx.kernel_launch_params"]]
        extents = [int(extent) for extent in call.args[len(call.args) - len(axes) :]]
        sizes = dict(zip(axes, extents, strict=True))
        assert set(sizes) <= {f"{kind}.{axis}" for kind in _KINDS for axis in "xyz"}, sizes
        grid, block = (
            (sizes.get(f"{kind}.x", 1), sizes.get(f"{kind}.y", 1), sizes.get(f"{kind}.z", 1))
            for kind in _KINDS
        )
        arguments = tuple(self._places[str(p.name).removesuffix("_ptr")] for p in func.params)
        return Launch(name, grid, block, arguments, _shared_bytes(func.body))


_KINDS = ("blockIdx", "threadIdx")


def _without_global(statement: Any, found: list[Any]) -> Any:
    """A root block without its global allocations, which are added to ``found``."""
    if isinstance(statement, s_tir.SBlockRealize):
        block = statement.block
        found += [b for b in block.alloc_buffers if b.scope() == "global"]
        kept = [b for b in block.alloc_buffers if b.scope() != "global"]
        root = s_tir.SBlock([], [], [], "root", _without_global(block.body, found), None, kept)
        return s_tir.SBlockRealize([], True, root)
    if not isinstance(statement, tirx.SeqStmt):
        return statement
    parts = []
    for part in statement.seq:
        if isinstance(part, tirx.AllocBuffer) and part.buffer.scope() == "global":
            found.append(part.buffer)
        else:
            parts.append(part)
    return tirx.SeqStmt(parts) if len(parts) > 1 else parts[0]


def _shared_bytes(statement: Any) -> int:
    own = 0
    if isinstance(statement, tirx.AllocBuffer) and statement.buffer.scope() == "shared":
        own = allocated_bytes(statement.buffer)
    return own + sum(map(_shared_bytes, children(statement)))


def _launches(statement: Any) -> Iterator[Any]:
    """Calls of device functions, in order."""
    if isinstance(statement, tirx.Evaluate):
        call = statement.value
        if getattr(getattr(call, "op", None), "name", "") == "tirx.call_ffi_kernel":
            yield call
    for child in children(statement):
        yield from _launches(child)
