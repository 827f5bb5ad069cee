"""Binarize kernels against the NumPy oracle, on every level this machine runs."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows, unpack_rows
from gsb_tvm.dialect.specs import Binarize, Compare, Kind
from gsb_tvm.schedules.binarize.space import rule
from gsb_tvm.schedules.families import kernel
from gsb_tvm.targets.profile import Profile
from tests.effort import examples
from tests.schedules.cuts import CUTS, WHOLE, Cut
from tests.schedules.levels import ALL, compiled, profile_of, runnable, target_of

EPS = 2.0**-20
WIDTHS = (1, 2, 24, 31, 32, 33, 63, 64, 65, 96, 127, 128, 200, 384, 1000)
EDGES = [
    (1, 1),
    (1, 4096),
    (2, 24),
    (6, 24),
    (4, 8),
    (3, 33),
    (1, 31),
    (31, 1),
    (12, 64),
    (2, 2048),
]

Array = np.ndarray


@pytest.fixture(scope="module", params=ALL)
def level(request: pytest.FixtureRequest) -> Profile:
    return runnable(target_of(request.param))


@lru_cache(maxsize=64)
def _build(spec: Binarize, profile: Profile, cut: Cut = WHOLE) -> Any:
    return compiled(cut(kernel(spec, profile)), profile)


def _run(
    spec: Binarize, profile: Profile, inputs: Sequence[Array], cut: Cut = WHOLE
) -> list[Array]:
    outputs = [
        tvm.runtime.tensor(np.full(shape, 0x5A, dtype)) for _, shape, dtype in spec.outputs()
    ]
    _build(spec, profile, cut)["main"](*map(tvm.runtime.tensor, inputs), *outputs)
    return [output.numpy() for output in outputs]


def _check(spec: Binarize, profile: Profile, inputs: Sequence[Array], cut: Cut = WHOLE) -> None:
    """Every word and flag equals the oracle's; padding tokens do not count."""
    got, want = _run(spec, profile, inputs, cut), oracle.compute(spec, inputs)
    for (name, _, dtype), a, b in zip(spec.outputs(), got, want, strict=True):
        if dtype == "uint32":
            a, b = a[..., : spec.rows.tokens], b[..., : spec.rows.tokens]
        np.testing.assert_array_equal(a, b, err_msg=f"{name} of {spec}")


def _balanced(rng: np.random.Generator, rows: Rows) -> Array:
    """Rows of small integers that cancel: sums and sums of squares are exact in any order."""
    half = rng.integers(-9, 10, (rows.batch, rows.tokens, rows.features // 2))
    middle = np.zeros((rows.batch, rows.tokens, rows.features % 2), dtype=np.int64)
    x = np.concatenate([half, middle, -half], axis=-1)
    return rng.permuted(x, axis=-1).astype(np.float32)


def exact_inputs(rng: np.random.Generator, spec: Binarize) -> list[Array]:
    """Inputs with exact statistics; token 0 often meets 0 exactly, if every step is rounded."""
    x = _balanced(rng, spec.rows)
    features = spec.rows.features
    gamma = rng.standard_normal(features).astype(np.float32)
    beta = rng.standard_normal(features).astype(np.float32)
    shift = np.where(rng.random(features) < 0.5, 0, rng.standard_normal(features))
    if spec.norm:
        normed = oracle.layer_norm(x, gamma, np.zeros_like(beta), spec.eps)
        met = rng.random(features) < 0.5
        beta[met] = -normed[0, 0, met]
        shift[met] = 0
    extra = [gamma, beta] if spec.norm else []
    return [x, *extra, *([shift.astype(np.float32)] if spec.shift else [])]


@st.composite
def specs(draw: st.DrawFn, *, norm: bool | None = None) -> Binarize:
    groups, width = draw(
        st.one_of(
            st.sampled_from(EDGES),
            st.tuples(st.integers(1, 3), st.sampled_from(WIDTHS)),
            st.tuples(st.integers(1, 7), st.integers(1, 130)),
        )
    )
    rows = Rows(draw(st.integers(1, 3)), draw(st.integers(1, 70)), groups, width)
    kind = draw(st.sampled_from(list(Kind)))
    bound = 0.0 if kind is Kind.MASKED else draw(st.sampled_from([0.0, 0.5, -1.25]))
    strict = kind is Kind.MASKED or draw(st.booleans())
    normed = draw(st.booleans()) if norm is None else norm
    return Binarize(rows, Compare(kind, bound, strict), normed, draw(st.booleans()), EPS)


@settings(max_examples=examples(40), deadline=None, derandomize=True)
@given(spec=specs(), cut=CUTS, seed=st.integers(0, 2**32 - 1))
def test_agrees_on_rows_with_exact_statistics(
    level: Profile, spec: Binarize, cut: Cut, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(2):
        _check(spec, level, exact_inputs(rng, spec), cut)


def _tolerance(spec: Binarize, inputs: Sequence[Array]) -> Array:
    """Bound on |u - oracle's u| where only the sums are reassociated.

    With e = 2**-24 and n = features, a float32 sum of n terms is off by at most (n - 1) e times the
    sum of magnitudes, so the mean by dm = n e mean|x|, plus 2 e max|x| for its rounding; the
    variance by (n + 4) e relative and dm**2, the deviation by half of it. u inherits
    |gamma| (dm + |x - mean| * relative) / s, and each of its six steps rounds once.
    """
    x, gamma, beta = (array.astype(np.float64) for array in inputs[:3])
    shift = inputs[3].astype(np.float64) if spec.shift else np.zeros_like(beta)
    e, n = 2.0**-24, spec.rows.features
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True) + spec.eps
    s = np.sqrt(var)
    dm = n * e * np.abs(x).mean(-1, keepdims=True) + 2 * e * np.abs(x).max(-1, keepdims=True)
    relative = (n + 8) * e + dm**2 / var + 2 * dm / s
    q = np.abs(x - mean) / s
    size = np.abs(gamma) * q + np.abs(beta) + np.abs(shift)
    return np.abs(gamma) * (dm / s + q * relative) + 12 * e * size


@settings(max_examples=examples(24), deadline=None, derandomize=True)
@given(
    spec=specs(norm=True),
    seed=st.integers(0, 2**32 - 1),
    offset=st.sampled_from([0.0, 3.0, -100.0]),
    scale=st.sampled_from([1.0, 2.0**-20, 2.0**20]),
)
def test_agrees_on_random_rows_away_from_the_bound(
    level: Profile, spec: Binarize, seed: int, offset: float, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(shape).astype(np.float32) for _, shape, _ in spec.inputs()]
    inputs[0] = ((inputs[0] + np.float32(offset)) * np.float32(scale)).astype(np.float32)
    u = oracle.layer_norm(*inputs[:3], spec.eps) + (inputs[3] if spec.shift else 0)
    clear = np.abs(u - spec.compare.bound) > _tolerance(spec, inputs)
    if spec.rows.features <= 512 and scale == 1.0 and spec.rows.features > 1:
        assert clear.mean() > 0.8
    if spec.compare.kind is Kind.MASKED:
        clear &= np.abs(u) > _tolerance(spec, inputs)
    got, want = _run(spec, level, inputs), oracle.compute(spec, inputs)
    for a, b in zip(got, want, strict=True):
        if a.ndim == 3:
            differs = unpack_rows(a, spec.rows) != unpack_rows(b, spec.rows)
            assert not (differs & clear).any()


@pytest.mark.parametrize("features", [(1, 24), (1, 96), (3, 33)])
@pytest.mark.parametrize("strict", [True, False])
def test_values_no_reciprocal_can_serve(
    level: Profile, features: tuple[int, int], strict: bool
) -> None:
    """Zero and infinite deviation, denormal rows, infinities, NaN: as the real division."""
    rows = Rows(1, 13, *features)
    spec = Binarize(rows, Compare(Kind.MASK, 0.0, strict), True, True, 0.0)
    rng = np.random.default_rng(5)
    x = _balanced(rng, rows)
    for token, factor in enumerate([0.0, 2.0**-140, 2.0**-75, 2.0**62, 2.0**70, 2.0**-60]):
        x[0, token] *= np.float32(factor)
    x[0, 6, 3], x[0, 7, 3], x[0, 8, 5] = np.inf, -np.inf, np.nan
    vectors = [rng.standard_normal(rows.features).astype(np.float32) for _ in range(3)]
    with np.errstate(all="ignore"):
        _check(spec, level, [x, *vectors])


GAMMAS = (0.0, -0.0, 1e-44, -1e-44, 2.0**-95, -(2.0**-95), 1e-30, 1e-6, -1.0, 1.0, 300.0, 1e30)
OFFSETS = (0.0, 2.0**-149, 2.0**-80, 1e-6, 1.0, 19.0, 21.0, 64.0, 1e30)


@pytest.mark.parametrize("kind", list(Kind))
def test_factors_and_offsets_of_any_size(level: Profile, kind: Kind) -> None:
    """Also beta and shift that cancel, nearly or to exactly 0, and rows far from 0."""
    gamma, beta = (a.ravel() for a in np.meshgrid(np.float32(GAMMAS), np.float32(OFFSETS)))
    features = -(-gamma.size // 32) * 32
    rng = np.random.default_rng(3)
    rows = Rows(1, 9, 1, features)
    spec = Binarize(rows, Compare(kind, 0.0, kind is Kind.MASKED), True, True, EPS)
    x = _balanced(rng, rows)
    x[0, 6:] += np.float32([8, 64, 2**14])[:, None]  # as many deviations as 1, 12 and 3000
    for factor in (-1.0, -1.0 + 2.0**-23, 0.0, 1.0, -0.5):
        for few in (slice(0, None), slice(9 * gamma.size // 12, None), slice(0, 32)):
            vectors = [np.resize(a[few], features) for a in (gamma, beta)]
            shift = (vectors[1] * np.float32(factor)).astype(np.float32)
            with np.errstate(all="ignore"):
                _check(spec, level, [x, *vectors, shift])


@pytest.mark.parametrize(("groups", "width"), [(1, 24), (2, 33), (1, 384)])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_rows_of_one_value(level: Profile, groups: int, width: int, value: float) -> None:
    spec = Binarize(Rows(2, 7, groups, width), Compare(Kind.MASKED), False, False)
    x = np.full((2, 7, groups * width), value, np.float32)
    _check(spec, level, [x])
    bits, nonzero, zeros = _run(spec, level, [x])
    assert unpack_rows(bits, spec.rows).all() == (value > 0)
    assert unpack_rows(nonzero, spec.rows).any() == (value != 0)
    assert zeros[0] == (value == 0)


def test_one_zero_sets_the_flag(level: Profile) -> None:
    spec = Binarize(Rows(1, 19, 2, 40), Compare(Kind.MASKED), False, False)
    x = np.ones((1, 19, 80), np.float32)
    x[0, 18, 79] = -0.0
    _check(spec, level, [x])


@pytest.mark.parametrize("spec", [
    Binarize(Rows(1, 198, 1, 384), Compare(Kind.MASKED), True, True, 1e-12),
    Binarize(Rows(2, 7, 6, 24), Compare(Kind.SIGN), True, False, 1e-5),
    Binarize(Rows(1, 3, 1, 24), Compare(Kind.MASK, 0.5), False, True),
])  # fmt: skip
def test_compiles_for_arm(spec: Binarize) -> None:
    source = _build(spec, profile_of("llvm -mcpu=cortex-a72")).mod.inspect_source("s")
    assert ("fdiv" in source) == spec.norm
    if spec.rows.features >= 32:
        assert ".4s" in source


def test_words_are_vector_compares_and_masks(level: Profile) -> None:
    spec = Binarize(Rows(1, 198, 1, 384), Compare(Kind.SIGN), True, True, 1e-12)
    source = _build(spec, level).mod.inspect_source("s")
    compares = ("fcmgt\tv", "fcmge\tv") if level.has_neon else ("cmpltps", "cmpgtps")
    fused = ("fmla\tv", "fmls\tv") if level.has_neon else ("vfnmadd", "vfmadd")
    assert any(name in source for name in compares)
    assert "mulss" not in source
    assert any(name in source for name in fused) == level.has_fma
    assert ("zmm" in source) == level.has_avx512


@pytest.mark.parametrize("level", ["skylake-avx512", "haswell", "x86-64"])
@pytest.mark.parametrize("tokens", range(1, 15))
@pytest.mark.parametrize("features", [32, 63, 64, 65, 4096])
def test_blocks_and_sums_fit_rows_and_registers(level: str, tokens: int, features: int) -> None:
    spec = Binarize(Rows(1, tokens, 1, features), Compare(Kind.SIGN), True, True, EPS)
    profile = profile_of(target_of(level))
    found = rule(spec, profile)
    assert found.rows == min(6, tokens)
    assert found.sum_words is not None
    assert 1 <= found.sum_words <= features // 32
    assert 32 * found.sum_words // profile.lanes <= 8
