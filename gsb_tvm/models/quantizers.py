"""The quantisers of GSB: plain forwards for inference and export, autograd functions for training.

Every quantiser is written twice. The plain function is the arithmetic in the order of the official
code; an exported graph consists of exactly these operations. The autograd function of the same name
in capitals calls it and adds the gradients of the paper (straight-through inside a window, learned
step sizes for the scales).

Letters: ``x`` the input, ``a`` a scale, ``t1``/``t2`` the indicators of the outer groups.
Source: arXiv 2305.07931 and its official code; learned step sizes: arXiv 1902.08153.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


def fp32(value: float) -> float:
    """Round a constant to float32, so that float64 runs use the constant of the exported graph."""
    return float(np.float32(value))


SMALLEST_SCALE = fp32(1e-5)
GROUP_1 = fp32(0.7)
GROUP_2 = fp32(0.9)


def positive(scale: Tensor) -> Tensor:
    """Replace a scale at or below 1e-5 by 1e-5."""
    smallest = torch.tensor(SMALLEST_SCALE, dtype=scale.dtype)
    return torch.where(scale > smallest, scale, smallest)


def levels(bits: int, *, signed: bool) -> tuple[int, int]:
    """Return the lowest and the highest integer level of a quantiser of several bits."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def binary_weight(weight: Tensor) -> Tensor:
    """Return ``m * sign(W - mean(W))`` with one ``m = mean |W|`` for the whole matrix."""
    m = weight.norm(p=1).div(weight.nelement())
    e = weight.mean()
    return (weight - e).sign().mul(m.expand(weight.size()))


def signed(x: Tensor, scale: Tensor) -> Tensor:
    """Return ``a * sign(x)``, where sign(0) = 0."""
    a = positive(scale)
    return x.sign() * a


def unsigned(x: Tensor, scale: Tensor) -> Tensor:
    """Return ``a * clamp(round(x / a), 0, 1)``; halves round to even."""
    a = positive(scale)
    return (x / a).round().clamp(0, 1) * a


def signed_int8(x: Tensor, scale: Tensor) -> Tensor:
    """Return ``a * clamp(round(x / a), -128, 127)``."""
    a = positive(scale)
    low, high = levels(8, signed=True)
    return (x / a).round().clamp(low, high) * a


def round_straight_through(x: Tensor) -> Tensor:
    """Round with an identity gradient, written so that the exported graph keeps its Sub and Add."""
    return x.round().detach() - x.detach() + x


def attention_masks(p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indicators of ``p > 0.7 max`` and ``p > 0.9 max``, max over the whole tensor."""
    t1 = (p > GROUP_1 * p.max()).to(p.dtype)
    t2 = (p > GROUP_2 * p.max()).to(p.dtype)
    return t1, t2


def value_masks(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indicators of the values beyond 0.7 and 0.9 of the tensor's max or min."""
    t1 = (v > GROUP_1 * v.max()).to(v.dtype) + (v < GROUP_1 * v.min()).to(v.dtype)
    t2 = (v > GROUP_2 * v.max()).to(v.dtype) + (v < GROUP_2 * v.min()).to(v.dtype)
    return t1, t2


def attention_groups(p: Tensor, scale: Tensor, scale2: Tensor, scale3: Tensor) -> Tensor:
    """Return ``a1 * clamp(round(p / a1), 0, 1) + a2 * t1 + a3 * t2``."""
    t1, t2 = attention_masks(p)
    a1, a2, a3 = positive(scale), positive(scale2), positive(scale3)
    base = (p / a1).round().clamp(0, 1)
    return base * a1 + t1 * a2 + t2 * a3


def value_groups(v: Tensor, scale: Tensor, scale2: Tensor, scale3: Tensor) -> Tensor:
    """Return ``g1 * sign(v) + g2 * sign(v * t1) + g3 * sign(v * t2)``."""
    t1, t2 = value_masks(v)
    v1 = v * t1
    v2 = v * t2
    a1, a2, a3 = positive(scale), positive(scale2), positive(scale3)
    s3 = v2.sign()
    s2 = v1.sign()
    s1 = v.sign()
    return s1 * a1 + s2 * a2 + s3 * a3


def _window(q: Tensor, low: float, high: float) -> Tensor:
    """Indicate where the straight-through gradient passes: ``low <= q <= high``."""
    return ((q >= low) & (q <= high)).to(q.dtype)


def _step_gradient(q: Tensor, low: int, high: int) -> Tensor:
    """Return the derivative of ``a * clamp(round(x / a))`` by ``a`` at ``q = x / a``."""
    return torch.where(q < low, float(low), torch.where(q > high, float(high), q.round() - q))


def _sign_gradient(q: Tensor) -> Tensor:
    """Return the derivative of ``a * sign(x)`` by ``a`` at ``q = x / a``."""
    return q.sign() - _window(q, -1, 1) * q


def _inverse_root(count: Tensor) -> Tensor:
    """Return ``1 / sqrt(count)``; an empty group has no gradient, so its factor does not matter."""
    return count.clamp(min=1).rsqrt()


class BinaryWeight(torch.autograd.Function):
    """`binary_weight` with the identity as gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        """See `binary_weight`."""
        return binary_weight(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Pass the gradient on."""
        return grads[0]


class Signed(torch.autograd.Function):
    """`signed` with ``dx = I g`` and ``da = sum((sign(x) - I x / a) g) / sqrt(numel)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        """See `signed`."""
        ctx.save_for_backward(x, positive(scale))
        return signed(x, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by input and scale."""
        x, a = ctx.saved_tensors
        (g,) = grads
        q = x / a
        return _window(q, -1, 1) * g, (_sign_gradient(q) * g).sum() / math.sqrt(x.numel())


class _Step(torch.autograd.Function):
    """A rounding quantiser between two levels with the gradients of a learned step size."""

    low: int
    high: int

    @classmethod
    def gradients(cls, ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``I g`` and ``sum(step g) / sqrt(numel * high)``."""
        x, a = ctx.saved_tensors
        q = x / a
        step = (_step_gradient(q, cls.low, cls.high) * g).sum() / math.sqrt(x.numel() * cls.high)
        return _window(q, cls.low, cls.high) * g, step


class Unsigned(_Step):
    """`unsigned` with the gradients of a learned step size between 0 and 1."""

    low, high = 0, 1

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        """See `unsigned`."""
        ctx.save_for_backward(x, positive(scale))
        return unsigned(x, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by input and scale."""
        return Unsigned.gradients(ctx, grads[0])


class SignedInt8(_Step):
    """`signed_int8` with the gradients of a learned step size between -128 and 127."""

    low, high = -128, 127

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        """See `signed_int8`."""
        ctx.save_for_backward(x, positive(scale))
        return signed_int8(x, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by input and scale."""
        return SignedInt8.gradients(ctx, grads[0])


class ScaledGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """Return ``x``."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return ``factor * g``."""
        return grads[0] * ctx.factor, None


class AttentionGroups(torch.autograd.Function):
    """`attention_groups` with ``dp = (I + a2 t1 + a3 t2) g`` and one gradient a scale."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, scale: Tensor, scale2: Tensor, scale3: Tensor) -> Tensor:
        """See `attention_groups`."""
        ctx.save_for_backward(p, positive(scale), positive(scale2), positive(scale3))
        return attention_groups(p, scale, scale2, scale3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients by input and the three scales."""
        p, a1, a2, a3 = ctx.saved_tensors
        (g,) = grads
        t1, t2 = attention_masks(p)
        q = p / a1
        return (
            (_window(q, 0, 1) + t1 * a2 + t2 * a3) * g,
            (_step_gradient(q, 0, 1) * g).sum() / math.sqrt(p.numel()),
            (t1 * g).sum() * _inverse_root(t1.sum()),
            (t2 * g).sum() * _inverse_root(t2.sum()),
        )


class ValueGroups(torch.autograd.Function):
    """`value_groups` with ``dv = (I1 + I2 + I3) g`` and the gradient of a sign for each scale."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, scale: Tensor, scale2: Tensor, scale3: Tensor) -> Tensor:
        """See `value_groups`."""
        ctx.save_for_backward(v, positive(scale), positive(scale2), positive(scale3))
        return value_groups(v, scale, scale2, scale3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients by input and the three scales."""
        v, a1, a2, a3 = ctx.saved_tensors
        (g,) = grads
        t1, t2 = value_masks(v)
        q1, q2, q3 = v / a1, v * t1 / a2, v * t2 / a3
        windows = _window(q1, -1, 1) + _window(q2, -1, 1) + _window(q3, -1, 1)
        return (
            windows * g,
            (_sign_gradient(q1) * g).sum() / math.sqrt(v.numel()),
            (_sign_gradient(q2) * g).sum() * _inverse_root(t1.sum()),
            (_sign_gradient(q3) * g).sum() * _inverse_root(t2.sum()),
        )
