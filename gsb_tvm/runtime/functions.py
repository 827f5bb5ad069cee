"""Kernels as private functions on bare pointers, one for each phase."""

from collections.abc import Sequence
from typing import Any

from tvm import s_tir, tirx
from tvm.ir import GlobalVar, PointerType, PrimType
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.phases import is_phase, statements
from gsb_tvm.runtime.program import Buffer, aligned

Expr = Any


class Kernel:
    """A kernel as private functions, one for each phase.

    Their parameters are a pointer for each tensor, the call's memory, the part and the number of
    parts. A kernel without phases is one function for part 0.
    """

    def __init__(self, name: str, func: tirx.PrimFunc, scratch: int) -> None:
        self.func = func
        body = statements(func)
        phases = [statement for statement in body if is_phase(statement)]
        self.is_shared = bool(phases)
        self.shared_bytes = 0
        self.functions: dict[GlobalVar, tirx.PrimFunc] = {}
        if not phases:
            variables = [tirx.Var("part", PrimType("int32")), tirx.Var("parts", PrimType("int32"))]
            self.functions[GlobalVar(name)] = self._function([], func.body, variables)
            return
        buffers = [statement.buffer for statement in body if not is_phase(statement)]
        offsets = []
        for buffer in buffers:
            offsets.append((buffer, scratch + self.shared_bytes))
            self.shared_bytes += aligned(allocated_bytes(buffer))
        for i, loop in enumerate(phases):
            root = s_tir.SBlock([], [], [], "root", loop.body.body)
            body = s_tir.SBlockRealize([], True, root)
            made = self._function(offsets, body, [loop.body.loop_var, loop.loop_var])
            self.functions[GlobalVar(f"{name}_phase{i}" if len(phases) > 1 else name)] = made

    def _function(
        self, shared: Sequence[tuple[Any, int]], body: Any, variables: Sequence[Any]
    ) -> tirx.PrimFunc:
        buffers = self.func.params
        handles = [tirx.Var(buffer.name, pointer_type(str(buffer.ty.dtype))) for buffer in buffers]
        memory = tirx.Var("memory", pointer_type("uint8"))
        declared = [
            tirx.DeclBuffer(buffer, data=handle)
            for buffer, handle in zip(buffers, handles, strict=True)
        ]
        if shared:
            flat = tirx.decl_buffer((2**30,), "uint8", "shared")
            declared.append(tirx.DeclBuffer(flat, data=memory))
            declared += [tirx.DeclBuffer(b, data=address(flat, at)) for b, at in shared]
        params = [*handles, memory, *variables]
        made = tirx.PrimFunc(params, tirx.SeqStmt([*declared, body]), PrimType("int32"))
        return made.with_attrs({"tirx.noalias": True, "s_tir": True})


def address(flat: Any, offset: Expr) -> Expr:
    """Pointer to byte ``offset`` of a flat buffer of bytes."""
    return T.address_of(tirx.BufferLoad(flat, [offset]))


def pointer_type(dtype: str) -> PointerType:
    """Type of a pointer to elements of ``dtype``."""
    return PointerType(PrimType(dtype))


def allocated_bytes(buffer: Any) -> int:
    """Size of a buffer that a kernel allocates."""
    shape = tuple(int(extent) for extent in buffer.ty.shape)
    return Buffer("arena", 0, shape, str(buffer.ty.dtype)).size_bytes


def number(name: str) -> Expr:
    """An int32 parameter of the function that is being written."""
    return T.arg(name, tirx.Var(name, PrimType("int32")))
