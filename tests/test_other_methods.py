"""The compiler is not one of GSB: binary transformers of other methods come through as well.

Each module is exported with weights as subgraphs and straight-through terms as training left them,
compiled for this machine, and compared with its meaning in float64. Where shifts or biases do not
keep sums of signs from 0, torch in float32 takes the signs of those zeros at random; exact sums do
not, so the bound is tighter than any float runtime meets.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

import gsb_tvm  # noqa: E402
from gsb_tvm.dialect.errors import StrictError  # noqa: E402
from tests import other_methods as m  # noqa: E402
from tests.effort import every  # noqa: E402
from tests.other_methods import TOKENS, Attention, Linear, Move  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
SIZES = [(24, 2), (64, 4)]  # features, heads: widths of 12 and 16, both less than a word
TOLERANCE = 5e-6
Build = Callable[[int, int], "torch.nn.Module"]


@dataclass(frozen=True)
class Method:
    """How to build it; which planes its products have; why its float operators are float."""

    build: Build
    packed: tuple[str, ...]
    floats: tuple[str, ...] = ()


def sign_attention(sign: Callable[[], "torch.nn.Module"], **options: object) -> Attention:
    return Attention(query=sign(), key=sign(), value=sign(), **options)


def bit(d: int, h: int) -> Attention:
    return Attention(
        d,
        h,
        linear=lambda: Linear(d, d, Move(d, m.ScaledSign(0.7)), by_tensor=True),
        query=m.ScaledSign(0.5),
        key=m.ScaledSign(0.6),
        value=m.ScaledSign(0.8),
        probabilities=m.SoftmaxMask(0.15, padded=2),
    )


def bit_mlp(d: int, h: int) -> "torch.nn.Module":
    return torch.nn.Sequential(
        Linear(d, 2 * d, Move(d, m.ScaledSign(0.7)), by_tensor=True),
        torch.nn.ReLU(),
        Linear(2 * d, d, Move(2 * d, m.Mask(0.4)), by_tensor=True),
    )


def bibert(d: int, h: int) -> Attention:
    options = {"linear": lambda: Linear(d, d, m.ClipSign()), "probabilities": m.PositiveScores()}
    return sign_attention(m.ClipSign, features=d, heads=h, **options)


def bibert_mlp(d: int, h: int) -> "torch.nn.Module":
    return torch.nn.Sequential(
        Linear(d, 2 * d, m.ClipSign()),
        torch.nn.GELU(),
        torch.nn.LayerNorm(2 * d),
        Linear(2 * d, d, m.ClipSign()),
    )


def moved_attention(d: int, h: int, sign: Callable[[], object], probabilities: object) -> Attention:
    """BinaryViT and BHViT: no bias, shifts before the signs of linear layers only."""
    linear = lambda: Linear(d, d, Move(d, sign()), bias=False)  # noqa: E731
    return sign_attention(sign, features=d, heads=h, linear=linear, probabilities=probabilities)


def bivit(d: int, h: int, probabilities: object) -> Attention:
    linear = lambda: m.LearnedScaleLinear(d, d, m.ClipSign())  # noqa: E731
    return sign_attention(
        m.ClipSign, features=d, heads=h, linear=linear, probabilities=probabilities
    )


def affine(d: int, h: int) -> Attention:
    return Attention(
        d,
        h,
        linear=lambda: Linear(d, d, m.PolynomialSign(), centred=False, bias=False),
        query=torch.nn.Sequential(torch.nn.LayerNorm(d // h), m.AffineSign.of_heads(h)),
        key=torch.nn.Sequential(torch.nn.LayerNorm(d // h), m.AffineSign.of_heads(h)),
        value=m.AffineSign.of_heads(h),
        probabilities=m.AffineAttention(h),
    )


def per_head(d: int, h: int) -> Attention:
    return sign_attention(
        lambda: m.HeadSign(h),
        features=d,
        heads=h,
        linear=lambda: Linear(d, d, m.CompareSign()),
        probabilities=m.SoftmaxMask(0.15),
    )


ONE = "1 plane x 1 plane"
NESTED = "3 planes x 1 plane"
BOTH = (ONE,) * 6
METHODS = {
    "BiT attention": Method(bit, BOTH),
    "BiT feed-forward": Method(bit_mlp, (ONE, ONE)),
    "BiBERT attention": Method(bibert, BOTH),
    "BiBERT feed-forward": Method(bibert_mlp, (ONE, ONE)),
    "BinaryViT attention": Method(
        lambda d, h: moved_attention(d, h, m.PolynomialSign, m.SoftmaxMask(0.15)), BOTH
    ),
    "BinaryViT feed-forward": Method(
        lambda d, h: m.NormShortcutLinear(d, m.PolynomialSign, widening=4), (ONE, ONE)
    ),
    "BHViT attention": Method(
        lambda d, h: moved_attention(d, h, m.SelfSign, m.NestedMasks(h)),
        (*(ONE,) * 4, NESTED, ONE),
    ),
    "BHViT attention, row thresholds": Method(
        lambda d, h: moved_attention(d, h, m.SelfSign, m.RowThresholdMasks(0.15)),
        (*(ONE,) * 4, NESTED, ONE),
    ),
    "Bi-ViT attention": Method(
        affine, (*(ONE,) * 3, "3 planes x 3 planes", "2 planes x 3 planes", ONE)
    ),
    "BiViT attention": Method(lambda d, h: bivit(d, h, m.RowMaximumMask()), BOTH),
    "BiViT attention, baseline": Method(lambda d, h: bivit(d, h, m.PositiveScores()), BOTH),
    "BiViT feed-forward, float activation": Method(
        lambda d, h: m.LearnedScaleLinear(d, d, torch.nn.GELU()),
        (),
        ("weight is binary, activation is float",),
    ),
    "ReActNet linear": Method(lambda d, h: m.NormShortcutLinear(d, m.WhereSign), (ONE, ONE)),
    "ReActNet convolution": Method(
        lambda d, h: m.ReActBlock(d), (), ("binary convolution has no packed kernel",)
    ),
    "a scale for each head": Method(per_head, BOTH),
}


def built(method: Method, d: int, h: int) -> "tuple[torch.nn.Module, torch.Tensor]":
    torch.manual_seed(3)
    module = method.build(d, h).eval()
    is_image = isinstance(module, m.ReActBlock)
    return module, torch.randn((2, d, 7, 7) if is_image else (2, TOKENS, d))


def exported(
    module: "torch.nn.Module", x: "torch.Tensor", *, dynamo: bool = False
) -> onnx.ModelProto:
    """Weights stay subgraphs: nothing is folded on the way out."""
    with torch.no_grad():
        if not dynamo:
            file = io.BytesIO()
            options = {"dynamo": False, "opset_version": 17, "do_constant_folding": False}
            torch.onnx.export(module, (x,), file, **options)
            return onnx.load_from_string(file.getvalue())
        for optimize in (True, False):
            options = {"dynamo": True, "opset_version": 18, "verbose": False, "optimize": optimize}
            proto = torch.onnx.export(module, (x,), **options).model_proto
            try:
                onnx.checker.check_model(proto)
            except onnx.checker.ValidationError:
                continue  # the optimiser loses the bounds of a clip that it shares
            return proto
    raise AssertionError("the exporter wrote no valid model")


def assert_compiles(
    method: Method, d: int, h: int, *, dynamo: bool = False, simplified: bool = False
) -> None:
    module, x = built(method, d, h)
    model = exported(module, x, dynamo=dynamo)
    expected = list(method.packed)
    if simplified:
        model, _ = pytest.importorskip("onnxsim").simplify(model)
        expected = expected[-3:]  # what reads one sign is one layer then
    compiled = gsb_tvm.build(model)
    packed = [row.reason for row in compiled.report if row.form == "packed"]
    floats = [row.reason for row in compiled.report if row.form == "float"]
    assert (packed[-3:] if simplified else packed, floats) == (expected, list(method.floats))
    with torch.no_grad():
        meant = m.reference(module)(x.double()).numpy()
    scale = np.abs(meant).max()
    assert scale > 0.1
    np.testing.assert_allclose(compiled(x.numpy()), meant, rtol=0, atol=TOLERANCE * scale)


@pytest.mark.parametrize(("d", "h"), every(2, SIZES))
@pytest.mark.parametrize("name", METHODS)
def test_legacy_export(name: str, d: int, h: int) -> None:
    assert_compiles(METHODS[name], d, h)


@pytest.mark.parametrize("name", every(3, METHODS))
def test_dynamo_export(name: str) -> None:
    assert_compiles(METHODS[name], *SIZES[0], dynamo=True)


@pytest.mark.parametrize("name", every(3, METHODS, 1))
def test_simplified_export(name: str) -> None:
    """Weights are constants of nearly two levels: what straight-through terms leave of them."""
    assert_compiles(METHODS[name], *SIZES[0], simplified=True)


def test_strict_names_what_is_binary_and_float() -> None:
    module, x = built(METHODS["ReActNet convolution"], *SIZES[0])
    with pytest.raises(StrictError, match=r"1 binary operator is left.*convolution"):
        gsb_tvm.build(exported(module, x), strict=True)


@pytest.mark.parametrize(
    "sign", [m.ClipSign, m.PolynomialSign, m.SelfSign, m.WhereSign, m.CompareSign]
)
def test_every_sign_in_a_linear_layer(sign: "type[torch.nn.Module]") -> None:
    """Inputs that are 0 show what each spelling makes of them."""
    torch.manual_seed(3)
    module = Linear(24, 33, sign()).eval()
    x = torch.randint(-1, 2, (1, TOKENS, 24)).float()
    compiled = gsb_tvm.build(exported(module, x))
    assert [row.form for row in compiled.report] == ["packed"]
    meant = m.reference(module)(x.double()).detach().numpy()
    np.testing.assert_allclose(compiled(x.numpy()), meant, rtol=0, atol=1e-6)
