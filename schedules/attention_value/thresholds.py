"""What an integer product of the base planes must exceed, channel by channel.

``u(d) = fl(fl(w d) + shift)`` never falls with d where w is positive, so that what is compared with
a bound is above it from some d on. An estimate of that d is tried out, with its neighbours, by the
very steps of ``u``. Where it does not fit, or where some d gives 0 and zeros count, the channel is
marked: its floats have to be looked at.
"""

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_value.head import Expr, Head
from gsb_tvm.schedules.counting import reinterpret

QUAD = 4  # channels at a time


class Thresholds:
    """Of one head: ``least[p, c]`` and ``marked[c]``, int8 and int32.

    With np set bits in a row of attention and n of them met, ``d = 2 n - np``, and d is above the
    channel's threshold where ``n - np // 2 > least[np % 2, c]``.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._channels = head.spec.v.width
        self.least = v.workspace((2, self._channels), "int8")
        self.marked = v.workspace((self._channels,), "int32")

    def find(self, weight: Expr) -> None:
        """Fill them; ``weight`` is positive and finite."""
        tokens, compare = self._head.tokens, self._head.spec.compare
        assert compare is not None
        beyond = tokens + 2.0  # no d is that far from 0, nor are its neighbours

        def const(value: float) -> Expr:
            return v.splat(value, QUAD)

        with T.serial(self._channels // QUAD) as quad:
            at = v.bind(quad * QUAD)
            shift = const(0.0)
            if self._head.spec.shift:
                first = self._head.head * self._channels + at
                shift = v.bind(v.load(self._head.named["shift"], first, lanes=QUAD))
            scale = v.splat(weight, QUAD)
            near = tirx.floor((const(compare.bound) - shift) / scale)
            near = v.bind(v.maximum(v.minimum(near, const(beyond)), const(-beyond)))
            # As words of ones: TVM's simplifier takes selections among such conditions apart.
            lowest, highest = _mask(near <= const(-beyond)), _mask(near >= const(beyond))
            tried = [
                v.bind(v.rounded((near + const(step)) * scale) + shift) for step in (-1.0, 0.0, 1.0)
            ]
            bound = const(compare.bound)
            below_it, it, above_it = (
                _mask(u > bound if compare.strict else u >= bound) for u in tried
            )
            fits = (~below_it | lowest) & (above_it | highest)
            if compare.kind is Kind.MASKED:
                below_it, negative, above_it = (_mask(u < const(0.0)) for u in tried)
                fits = fits & (below_it | lowest) & (~above_it | highest) & (it ^ negative)
            v.store(self.marked, reinterpret(~fits, f"int32x{QUAD}"), at, lanes=QUAD)
            one = v.splat(1, QUAD, "int32")
            last = near - T.cast(reinterpret(it, f"int32x{QUAD}") & one, f"float32x{QUAD}")
            last = v.maximum(v.minimum(last, const(tokens)), const(-tokens - 1.0))
            whole = v.bind(T.cast(last, f"int32x{QUAD}"))
            for odd in range(2):
                least = (whole + v.splat(odd, QUAD, "int32")) >> one
                v.store(self.least, T.cast(least, f"int8x{QUAD}"), odd, at, lanes=QUAD)


def _mask(condition: Expr) -> Expr:
    every, none = (v.splat(bits, QUAD, "uint32") for bits in (0xFFFFFFFF, 0))
    return v.bind(T.Select(condition, every, none))
