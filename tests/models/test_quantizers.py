"""Forward values and gradients of the quantisers against the formulas, written out in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb_tvm.models import quantizers as q

SEEDS = st.integers(0, 2**32 - 1)


def draw(seed: int, shape: tuple[int, ...] = (2, 3, 5, 7)) -> tuple[np.ndarray, np.ndarray]:
    """Return an input with some zeros and an incoming gradient, both float64."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    x[rng.random(shape) < 0.1] = 0
    return x, rng.standard_normal(shape)


def run(function, x: np.ndarray, g: np.ndarray, *scales: float):
    """Return the output and the gradients by input and scales."""
    x_ = torch.tensor(x, requires_grad=True)
    scales_ = [torch.tensor(s, dtype=torch.float64, requires_grad=True) for s in scales]
    out = function.apply(x_, *scales_)
    out.backward(torch.tensor(g))
    return out.detach().numpy(), x_.grad.numpy(), [s.grad.item() for s in scales_]


def step_gradient(x: np.ndarray, a: float, low: int, high: int) -> np.ndarray:
    inside = (x / a >= low) & (x / a <= high)
    rounding = np.round(x / a) - x / a
    return np.where(inside, rounding, np.where(x / a < low, low, high))


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0.05, 3))
def test_signed(seed: int, a: float) -> None:
    x, g = draw(seed)
    inside = np.abs(x / a) <= 1
    out, dx, (da,) = run(q.Signed, x, g, a)
    np.testing.assert_array_equal(out, a * np.sign(x))
    np.testing.assert_array_equal(dx, inside * g)
    expected = np.sum((np.sign(x) - inside * x / a) * g) / np.sqrt(x.size)
    np.testing.assert_allclose(da, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0.05, 3))
def test_unsigned(seed: int, a: float) -> None:
    x, g = draw(seed)
    inside = (x / a >= 0) & (x / a <= 1)
    out, dx, (da,) = run(q.Unsigned, x, g, a)
    np.testing.assert_array_equal(out, a * (x / a > 0.5))
    np.testing.assert_array_equal(dx, inside * g)
    expected = np.sum(step_gradient(x, a, 0, 1) * g) / np.sqrt(x.size)
    np.testing.assert_allclose(da, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0.002, 0.1))
def test_signed_int8(seed: int, a: float) -> None:
    x, g = draw(seed)
    inside = (x / a >= -128) & (x / a <= 127)
    out, dx, (da,) = run(q.SignedInt8, x, g, a)
    np.testing.assert_array_equal(out, np.clip(np.round(x / a), -128, 127) * a)
    np.testing.assert_array_equal(dx, inside * g)
    expected = np.sum(step_gradient(x, a, -128, 127) * g) / np.sqrt(x.size * 127)
    np.testing.assert_allclose(da, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_attention_groups(seed: int) -> None:
    x, g = draw(seed)
    p = np.abs(x) / 3
    a1, a2, a3 = 0.5, 0.25, 0.125
    t1 = p > np.float64(np.float32(0.7)) * p.max()
    t2 = p > np.float64(np.float32(0.9)) * p.max()
    inside = (p / a1 >= 0) & (p / a1 <= 1)
    out, dp, (d1, d2, d3) = run(q.AttentionGroups, p, g, a1, a2, a3)
    np.testing.assert_array_equal(out, a1 * (p / a1 > 0.5) + a2 * t1 + a3 * t2)
    np.testing.assert_allclose(dp, (inside + a2 * t1 + a3 * t2) * g, rtol=1e-12)
    expected = np.sum(step_gradient(p, a1, 0, 1) * g) / np.sqrt(p.size)
    np.testing.assert_allclose(d1, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(d2, np.sum(t1 * g) / np.sqrt(t1.sum()), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(d3, np.sum(t2 * g) / np.sqrt(t2.sum()), rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_value_groups(seed: int) -> None:
    v, g = draw(seed)
    scales = (0.75, 0.5, 0.25)
    low, high = v.min(), v.max()
    masks = [np.ones_like(v)]
    for share in (0.7, 0.9):
        share = np.float64(np.float32(share))
        masks.append(((v > share * high) | (v < share * low)).astype(float))
    out, dv, ds = run(q.ValueGroups, v, g, *scales)
    parts = [v * t for t in masks]
    inside = [np.abs(part / a) <= 1 for part, a in zip(parts, scales, strict=True)]
    levels = sum(a * np.sign(part) for part, a in zip(parts, scales, strict=True))
    np.testing.assert_allclose(out, levels, rtol=1e-12)
    np.testing.assert_allclose(dv, sum(i.astype(float) for i in inside) * g, rtol=1e-12)
    for part, a, i, t, d in zip(parts, scales, inside, masks, ds, strict=True):
        expected = np.sum((np.sign(part) - i * part / a) * g) / np.sqrt(t.sum())
        np.testing.assert_allclose(d, expected, rtol=1e-12, atol=1e-12)


def test_binary_weight_passes_the_gradient() -> None:
    w, g = draw(3, (4, 6))
    out, dw, _ = run(q.BinaryWeight, w, g)
    np.testing.assert_allclose(out, np.abs(w).mean() * np.sign(w - w.mean()), rtol=1e-12)
    np.testing.assert_array_equal(dw, g)


@pytest.mark.parametrize("function", [q.signed, q.unsigned, q.signed_int8])
def test_a_scale_below_the_smallest_counts_as_the_smallest(function) -> None:
    x = torch.tensor([-1.0, 0.0, 2.0])
    tiny = torch.tensor(1e-5)
    torch.testing.assert_close(function(x, torch.tensor(-3.0)), function(x, tiny), rtol=0, atol=0)


def test_a_half_rounds_to_even() -> None:
    a = torch.tensor(0.5)
    assert q.unsigned(torch.tensor([0.25, 0.2500001]), a).tolist() == [0.0, 0.5]


def test_round_straight_through_leaves_its_residue() -> None:
    x = torch.tensor([0.3, 100.7, -7.49], requires_grad=True)
    y = q.round_straight_through(x)
    torch.testing.assert_close(y, x.detach().round(), rtol=1e-6, atol=1e-6)
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def test_scaled_gradient() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    q.ScaledGradient.apply(x, 0.25).sum().backward()
    assert x.grad.tolist() == [0.25, 0.25]
