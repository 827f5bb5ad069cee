"""Walking through the set bits of a word."""

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import vector as v

Expr = v.Expr


def lowest(word: Expr) -> Expr:
    """Index of the lowest set bit of a word that is not 0, int32."""
    return T.cast(
        tirx.call_llvm_pure_intrin("uint32", "llvm.cttz", word, tirx.const(True, "bool")), "int32"
    )


def for_each_bit(word: Expr, body: Callable[[Expr], None]) -> None:
    """Call ``body(index)`` for the set bits of a uint32, lowest first."""
    pending = v.local((1,), "uint32")
    v.put(pending, word, 0)
    with T.While(pending[0] != T.uint32(0)):
        index = v.bind(lowest(pending[0]))
        v.put(pending, pending[0] & (pending[0] - T.uint32(1)), 0)
        body(index)
