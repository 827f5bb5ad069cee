"""Products whose sums are integers."""

import numpy as np
import torch
import torch.nn.functional as F

from gsb_tvm.models.bake import reference_logits
from gsb_tvm.models.fill import fresh_, realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb
from gsb_tvm.models.integer_products import IntegerProducts, product


def signs(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed))
    return drawn.float() - 1


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def test_sums_that_cancel_are_zero() -> None:
    a, w = signs(64, 385), signs(96, 385, seed=1)
    dots = a.double() @ w.double().T
    with IntegerProducts():
        found = F.linear(a * 0.3, w * 0.7)
    torch.testing.assert_close(found.double(), dots * 0.21, rtol=1e-6, atol=0)
    assert (dots == 0).any()
    assert (F.linear(a * 0.3, w * 0.7) == 0).ne(dots == 0).any()


def test_an_integer_is_scaled_by_the_rounded_product() -> None:
    a, b = signs(2, 8, 33), signs(2, 33, 5, seed=1)
    with IntegerProducts():
        found = (a * 0.3) @ (b * 0.7)
    scale = np.float32(0.3) * np.float32(0.7)
    assert np.array_equal(found.numpy(), (a @ b).numpy() * scale)


def test_superposed_tensors_are_rounded_once() -> None:
    a = signs(3, 4, 50) * 0.3 + signs(3, 4, 50, seed=1) * 0.05
    b = signs(3, 50, 6, seed=2) * 0.7
    want = (a.double() @ b.double()).float()
    torch.testing.assert_close(product(a, b), want, rtol=1e-6, atol=1e-12)
    doubled = product(torch.cat([a, -a], -1), torch.cat([b, b], -2))
    assert (doubled == 0).all()


def test_float_tensors_are_multiplied_as_they_are() -> None:
    a, b = normal(4, 9), normal(9, 3)
    assert torch.equal(product(a, b), (a.double() @ b.double()).float())
    assert torch.equal(product(torch.zeros(4, 9), b), torch.zeros(4, 3))


def test_convolutions_are_rounded_once() -> None:
    x, weight, bias = normal(1, 3, 32, 32), normal(8, 3, 16, 16), normal(8)
    with IntegerProducts():
        found = F.conv2d(x, weight, bias, 16)
    want = F.conv2d(x.double(), weight.double(), bias.double(), 16).float()
    assert torch.equal(found, want)
    assert not torch.equal(F.conv2d(x, weight, bias, 16), want)


def test_the_network_is_the_same_but_for_ties() -> None:
    images = np.random.default_rng(1).standard_normal((4, 3, 32, 32)).astype(np.float32)
    network = realistic_(Gsb(PRESETS["mini"]), 0)
    exact = reference_logits(network, images)
    for dtype in (torch.float32, torch.float64):
        found = reference_logits(network, images, dtype, integer_products=True)
        assert (np.abs(found - exact).max(1) < 1e-5).sum() >= 3


def test_untrained_networks_have_ties_that_float64_decides_otherwise() -> None:
    images = np.random.default_rng(1).standard_normal((16, 3, 32, 32)).astype(np.float32)
    network = fresh_(Gsb(PRESETS["mini64"]), 0)
    exact = reference_logits(network, images)
    same = reference_logits(network, images, integer_products=True)
    steps = reference_logits(network, images, torch.float32, integer_products=True)
    assert np.abs(same - exact).max() < 1e-9
    assert (np.abs(steps - exact).max(1) > 1e-3).any()
