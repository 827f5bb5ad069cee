"""A planned module as a list of kernel calls, every tensor in a fixed place.

Places are constants, the caller's inputs, or offsets into an arena. Nothing of the virtual machine
is left: what cannot be said this way is refused by name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.runtime.constants import Constants
from gsb_tvm.runtime.elf import ALIGNMENT

Place = Literal["input", "arena", "constant"]


@dataclass(frozen=True)
class Buffer:
    """A tensor's place: the number of an input, or a byte offset into the arena or constants."""

    place: Place
    at: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        """Size in bytes."""
        return _bytes(self.shape, self.dtype)


@dataclass(frozen=True)
class Step:
    """One kernel call; outputs come last among ``args``. ``layer`` names the result."""

    kernel: str
    args: tuple[Buffer, ...]
    layer: str = ""


@dataclass(frozen=True)
class Program:
    """A planned module as a list of kernel calls; ``arena_bytes`` counts tensors only."""

    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    arena_bytes: int


def program(planned: Any, constants: Constants) -> Program:
    """Read the ``main`` of a planned module.

    Parameters
    ----------
    planned
        What :func:`gsb_tvm.runtime.build.plan` returns; all shapes static.
    constants
        Takes in those of the module.

    Raises
    ------
    ModelError
        ``main`` holds something that is no call of a kernel.
    """
    main = planned["main"]
    walk = _Walk(constants)
    inputs = tuple(Buffer("input", i, *_type(p)) for i, p in enumerate(main.params))
    walk.values.update(zip(main.params, inputs, strict=True))
    for block in main.body.blocks:
        for binding in block.bindings:
            walk.bind(binding.var, binding.value)
    outputs = tuple(_leaves(walk.value(main.body.body)))
    return Program(inputs, outputs, tuple(walk.steps), walk.arena_bytes)


def aligned(size: int) -> int:
    """``size`` rounded up to ``ALIGNMENT``."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass
class _Walk:
    """Places of the values seen so far: a buffer, a tuple of values, or a storage's offset."""

    constants: Constants
    values: dict[Any, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    arena_bytes: int = 0

    def bind(self, var: Any, value: Any) -> None:
        """Take in ``var = value``."""
        kind = type(value).__name__
        if kind != "Call":
            self.values[var] = self.value(value)
            self._name_step(str(var.name), self.values[var])
        elif type(value.op).__name__ == "GlobalVar":
            args = tuple(leaf for arg in value.args for leaf in _leaves(self.value(arg)))
            self.steps.append(Step(str(value.op.name_hint), args))
        else:
            self.values[var] = self._operator(var, value, getattr(value.op, "name", str(value.op)))

    def _name_step(self, name: str, value: Any) -> None:
        """Give the last step the name of the value that holds what it wrote."""
        if (
            self.steps
            and not self.steps[-1].layer
            and set(_leaves(value)) & {self.steps[-1].args[-1]}
        ):
            self.steps[-1] = replace(self.steps[-1], layer=name)

    def value(self, expr: Any) -> Any:
        """Place of an expression that computes nothing."""
        kind = type(expr).__name__
        if kind in ("Var", "DataflowVar"):
            return self.values[expr]
        if kind == "Tuple":
            return tuple(self.value(item) for item in expr.fields)
        if kind == "TupleGetItem":
            return self.value(expr.tuple_value)[int(expr.index)]
        if kind == "GenericConst":
            return self._constant(expr)
        raise _unsupported(kind)

    def _operator(self, var: Any, call: Any, name: str) -> Any:
        args = call.args
        if name == "relax.memory.alloc_storage":
            return self._reserve(int(args[0].values[0]))
        if name == "relax.memory.alloc_tensor":
            offset = self.values[args[0]] + int(args[1].value)
            return Buffer("arena", offset, _shape(args[2]), str(args[3].value))
        if name == "relax.builtin.alloc_tensor":
            shape, dtype = _shape(args[0]), str(args[1].value)
            return Buffer("arena", self._reserve(_bytes(shape, dtype)), shape, dtype)
        if name == "relax.reshape":
            source = self.value(args[0])
            return Buffer(source.place, source.at, *_type(var))
        if name in ("relax.memory.kill_tensor", "relax.memory.kill_storage"):
            return ()
        raise _unsupported(name)

    def _reserve(self, size: int) -> int:
        offset = self.arena_bytes
        self.arena_bytes += aligned(size)
        return offset

    def _constant(self, expr: Any) -> Buffer:
        if expr not in self.values:
            at = self.constants.place(expr.value.numpy().tobytes())
            self.values[expr] = Buffer("constant", at, *_type(expr))
        place: Buffer = self.values[expr]
        return place


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    import tvm_ffi

    kind = tvm_ffi.dtype(dtype)
    count = kind.lanes * ((kind.bits + 7) // 8)
    for extent in shape:
        count *= extent
    return count


def _type(expr: Any) -> tuple[tuple[int, ...], str]:
    return _shape(expr.ty.shape), str(expr.ty.dtype)


def _shape(expr: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in expr.values)


def _leaves(value: Any) -> Iterator[Buffer]:
    if isinstance(value, tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _unsupported(what: str) -> ModelError:
    return ModelError(
        f"the lowered model holds {what}, expected calls of kernels on tensors of fixed shape. "
        "Give the model fixed shapes, or report it as a bug of gsb_tvm."
    )
