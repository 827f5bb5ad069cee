"""Exact float thresholds: the set of inputs for which a chain of float32 steps passes a bound.

Float32 addition of a constant and multiplication or division by a positive constant are monotone
after rounding, so ``{x : f(x) > bound}`` is a half-line. Its end is found by bisection over the
floats themselves, never by inverting the formula: exact by construction.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gsb_tvm.dialect.bits import Floats

Monotone = Callable[[Floats], Floats]


def _ordered(index: int) -> np.float32:
    """The float32 of rank ``index``; ranks order all finite floats and the two infinities."""
    bits = index if index >= 0 else 0x80000000 - index
    return np.uint32(bits).view(np.float32)


def _rank(value: np.float32) -> int:
    bits = int(np.float32(value).view(np.uint32))
    return bits if bits < 0x80000000 else 0x80000000 - bits


def pull_back(steps: Sequence[Monotone], bound: float, *, strict: bool) -> np.float32:
    """Float t such that ``f(x) > bound`` (``>=`` where not strict) exactly when ``x > t``.

    Parameters
    ----------
    steps
        Non-decreasing float32 functions, applied in order.
    bound
        Compared with the result.
    strict
        ``f(x) > bound`` if true, else ``f(x) >= bound``.

    Returns
    -------
    numpy.float32
        The largest float that does not pass; -inf where every finite float passes.
    """

    def passes(x: np.float32) -> bool:
        value = np.asarray(x, dtype=np.float32)
        with np.errstate(over="ignore"):
            for step in steps:
                value = np.asarray(step(value), dtype=np.float32)
        return bool(value > np.float32(bound)) if strict else bool(value >= np.float32(bound))

    low, high = _rank(np.float32(-np.inf)), _rank(np.float32(np.inf))
    while high - low > 1:
        middle = (low + high) // 2
        if passes(_ordered(middle)):
            high = middle
        else:
            low = middle
    return _ordered(low)
