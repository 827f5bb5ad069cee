"""A model as one C function over one block of memory, with no runtime under it.

The function walks the planned Relax module of :class:`gsb_tvm.runtime.build.Code`: it calls the
same compiled kernels in the same order as the virtual machine. Every tensor has a fixed place,
in the constants or in an arena that the caller provides. The kernels need three entry points of
the TVM runtime (errors, parallel loops, workspaces); :func:`runtime_source` is all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.runtime.elf import ALIGNMENT

PREFIX = "gsb"

Place = Literal["input", "arena", "constant"]


@dataclass(frozen=True)
class Buffer:
    """A tensor's place: the number of an input, or a byte offset into the arena or constants."""

    place: Place
    at: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Step:
    """One kernel call; outputs come last among ``args``."""

    kernel: str
    args: tuple[Buffer, ...]


@dataclass(frozen=True)
class Program:
    """A planned module as a list of kernel calls."""

    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    constants: bytes
    arena_bytes: int


def program(planned: Any) -> Program:
    """Read the ``main`` of a planned module.

    Parameters
    ----------
    planned
        What :func:`gsb_tvm.runtime.build.plan` returns; all shapes static.

    Raises
    ------
    ToolchainError
        ``main`` holds something that needs the virtual machine.
    """
    main = planned["main"]
    walk = _Walk()
    inputs = tuple(Buffer("input", i, *_type(p)) for i, p in enumerate(main.params))
    walk.values.update(zip(main.params, inputs, strict=True))
    for block in main.body.blocks:
        for binding in block.bindings:
            walk.bind(binding.var, binding.value)
    outputs = tuple(_leaves(walk.value(main.body.body)))
    return Program(inputs, outputs, tuple(walk.steps), bytes(walk.constants), walk.arena_bytes)


@dataclass
class _Walk:
    """Places of the values seen so far: a buffer, a tuple of values, or a storage's offset."""

    values: dict[Any, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    constants: bytearray = field(default_factory=bytearray)
    arena_bytes: int = 0

    def bind(self, var: Any, value: Any) -> None:
        """Take in ``var = value``."""
        kind = type(value).__name__
        if kind != "Call":
            self.values[var] = self.value(value)
        elif type(value.op).__name__ == "GlobalVar":
            args = tuple(leaf for arg in value.args for leaf in _leaves(self.value(arg)))
            self.steps.append(Step(value.op.name_hint, args))
        else:
            self.values[var] = self._operator(var, value, getattr(value.op, "name", str(value.op)))

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
        self.arena_bytes += -(-size // ALIGNMENT) * ALIGNMENT
        return offset

    def _constant(self, expr: Any) -> Buffer:
        if expr not in self.values:
            self.constants += bytes(-len(self.constants) % ALIGNMENT)
            self.values[expr] = Buffer("constant", len(self.constants), *_type(expr))
            self.constants += expr.value.numpy().tobytes()
        place: Buffer = self.values[expr]
        return place


def header(source: Program, prefix: str = PREFIX) -> str:
    """The C header of the function that :func:`model_source` defines."""
    return f"""\
#pragma once
#include <stddef.h>
#ifdef __cplusplus
extern "C" {{
#endif
#define {prefix.upper()}_ARENA_BYTES {max(source.arena_bytes, ALIGNMENT)}
/* Runs the model: {len(source.inputs)} inputs, {len(source.outputs)} outputs, C-contiguous.
   Inputs and arena are aligned to {ALIGNMENT} bytes. Threads need an arena each.
   Returns 0, or another number, and {prefix}_error() says why. */
int {prefix}_run(const void* const* inputs, void* const* outputs, void* arena);
const char* {prefix}_error(void);
#ifdef __cplusplus
}}
#endif
"""


def size_bytes(buffer: Buffer) -> int:
    """Size of a buffer in bytes."""
    return _bytes(buffer.shape, buffer.dtype)


def weights_symbol(prefix: str = PREFIX) -> str:
    """The symbol under which the C code expects the constants, aligned to ``ALIGNMENT``."""
    return f"{prefix}_weights"


def model_source(source: Program, prefix: str = PREFIX) -> str:
    """C source of the model: one call for each step, without its header's text."""
    kernels = sorted({step.kernel for step in source.steps})
    declared = "\n".join(f"Kernel __tvm_ffi_{name};" for name in kernels)
    steps = "\n".join(_step(step, prefix) for step in source.steps)
    copies = "\n".join(
        f"  memcpy(outputs[{i}], {_address(out, prefix)}, {size_bytes(out)});"
        for i, out in enumerate(source.outputs)
    )
    return f"""\
#include <stdint.h>
#include <string.h>
/* Layouts of tvm_ffi/c_api.h and dlpack.h. */
typedef struct {{ int32_t type; uint32_t zero; union {{ int64_t i; double f; void* p; }} v; }} Any;
typedef struct {{
  void* data; int32_t device, device_id; int32_t ndim; uint8_t code, bits; uint16_t lanes;
  const int64_t *shape, *strides; uint64_t byte_offset;
}} Tensor;
typedef int Kernel(void* self, const Any* args, int32_t num_args, Any* result);
extern const char {weights_symbol(prefix)}[];
{declared}
static int call(Kernel* kernel, Tensor* tensors, int32_t count) {{
  Any args[{max((len(s.args) for s in source.steps), default=1)}], result;
  for (int32_t i = 0; i < count; ++i) {{
    args[i].type = 7; /* kTVMFFIDLTensorPtr */
    args[i].zero = 0;
    args[i].v.p = &tensors[i];
  }}
  memset(&result, 0, sizeof result);
  return kernel(0, args, count, &result);
}}
int {prefix}_run(const void* const* inputs, void* const* outputs, void* arena) {{
  char* a = (char*)arena;
  (void)a;
  (void)inputs;
{steps}
{copies}
  return 0;
}}
"""


def runtime_source(prefix: str = PREFIX) -> str:
    """C source of the three services that kernels take from a runtime; loops run on one thread."""
    return f"""\
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
static _Thread_local char error_text[512];
const char* {prefix}_error(void) {{ return error_text; }}
void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {{
  error_text[0] = 0;
  strncat(error_text, kind, 64);
  strcat(error_text, ": ");
  for (int32_t i = 0; i < count; ++i)
    if (parts[i]) strncat(error_text, parts[i], sizeof error_text - 1 - strlen(error_text));
}}
typedef struct {{ void* sync; int32_t num_task; }} Group;
typedef int Task(int id, Group* group, void* data);
static int launch(Task* task, void* data, int wanted) {{
  Group group = {{0, 1}};
  (void)wanted;
  return task(0, &group, data);
}}
static void* reserve(int device, int id, uint64_t size, int code, int bits) {{
  void* memory = 0;
  (void)device; (void)id; (void)code; (void)bits;
  return posix_memalign(&memory, {ALIGNMENT}, size) ? 0 : memory;
}}
static int release(int device, int id, void* memory) {{
  (void)device; (void)id;
  free(memory);
  return 0;
}}
int (*__TVMBackendParallelLaunch)(Task*, void*, int) = launch;
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = reserve;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = release;
"""


def _step(step: Step, prefix: str) -> str:
    shapes = "".join(
        f"    static const int64_t s{i}[] = {{{_numbers(arg.shape)}}}, "
        f"t{i}[] = {{{_numbers(_strides(arg.shape))}}};\n"
        for i, arg in enumerate(step.args)
    )
    tensors = ",\n".join(
        f"      {{{_address(arg, prefix)}, 1, 0, {len(arg.shape)}, {_dtype(arg.dtype)}, "
        f"s{i}, t{i}, 0}}"
        for i, arg in enumerate(step.args)
    )
    return (
        f"  {{\n{shapes}    Tensor tensors[] = {{\n{tensors}}};\n"
        f"    if (call(__tvm_ffi_{step.kernel}, tensors, {len(step.args)})) return 1;\n  }}"
    )


def _address(buffer: Buffer, prefix: str) -> str:
    if buffer.place == "input":
        return f"(void*)inputs[{buffer.at}]"
    if buffer.place == "arena":
        return f"a + {buffer.at}"
    return f"(void*)({weights_symbol(prefix)} + {buffer.at})"


def _numbers(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values)) or "0"


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def _dtype(name: str) -> str:
    import tvm_ffi

    dtype = tvm_ffi.dtype(name)
    return f"{int(dtype.type_code)}, {dtype.bits}, {dtype.lanes}"


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


def _unsupported(what: str) -> ToolchainError:
    return ToolchainError(
        f"the compiled model holds {what}, which needs the virtual machine. "
        "Use the shared library instead of the C form."
    )
