"""The oracle against plain float arithmetic on planes that are read bit by bit.

Arguments are small multiples of 1/4 (see the catalogue), so every product and sum here is exact in
float64 and in float32; only norms and softmax round, and are compared away from their thresholds.
"""

import numpy as np
import pytest

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows, pack_rows
from gsb_tvm.dialect.specs import Binarize, Compare, Kind, ValuePlanes
from tests.dialect.catalogue import SPECS, arguments

SEEDS = range(3)


def read(packed, rows):
    """Bits (batch, tokens, groups, width) by shifts of words, not by the code under test."""
    per_group = -(-rows.width // 32)
    element = np.arange(rows.width)
    word = np.arange(rows.groups)[:, None] * per_group + element // 32
    picked = packed[:, word][..., : rows.tokens] >> (element % 32)[:, None].astype(np.uint32)
    return (picked & 1).transpose(0, 3, 1, 2).astype(np.float64)


def values(named, name, kind, rows):
    bits = read(named[f"{name}_bits"], rows)
    if kind is Kind.MASK:
        return bits
    signs = 2 * bits - 1
    return signs * read(named[f"{name}_nonzero"], rows) if kind is Kind.MASKED else signs


def flat(x):
    return x.reshape(*x.shape[:2], -1)


def weights(named, spec):
    """Float weight (padded columns, features), from the tiles."""
    rows = Rows(1, spec.padded_columns, spec.rows.groups, spec.rows.width)

    def plane(packed):
        by_word = packed.transpose(1, 0, 2).reshape(1, packed.shape[1], -1)
        return flat(read(by_word, rows))[0]

    signs = 2 * plane(named["weight"]) - 1
    masked = spec.weight is Kind.MASKED
    return signs * plane(named["weight_nonzero"]) if masked else signs


def run(name, seed):
    spec = SPECS[name]
    arrays = arguments(spec, seed)
    named = {tensor[0]: a for tensor, a in zip(spec.inputs(), arrays, strict=True)}
    outputs = oracle.compute(spec, arrays)
    for (_, shape, dtype), out in zip(spec.outputs(), outputs, strict=True):
        assert (out.shape, str(out.dtype)) == (shape, dtype)
    return spec, named, outputs


def assert_plane(outputs, expected, kind, rows, where=True):
    """``expected`` (batch, tokens, features) holds the values of the plane."""
    named = dict(zip(("o_bits", "o_nonzero", "o_zeros"), outputs, strict=False))
    found = flat(values(named, "o", kind, rows))
    np.testing.assert_array_equal(np.where(where, found, 0), np.where(where, expected, 0))
    if kind is Kind.MASKED:
        assert named["o_zeros"][0] == (expected == 0).any()


def compared(u, compare):
    if compare.kind is Kind.MASKED:
        return np.sign(u)
    holds = u > compare.bound if compare.strict else u >= compare.bound
    return holds * 1.0 if compare.kind is Kind.MASK else 2.0 * holds - 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["binarize", "binarize_mask"])
def test_binarize(name, seed):
    spec, named, outputs = run(name, seed)
    u = named["x"].astype(np.float64) + named.get("shift", 0)
    assert_plane(outputs, compared(u, spec.compare), spec.compare.kind, spec.rows)


@pytest.mark.parametrize("seed", SEEDS)
def test_binarize_after_a_norm(seed):
    spec, named, outputs = run("binarize_norm", seed)
    x = named["x"].astype(np.float64)
    z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + spec.eps)
    u = z * named["gamma"] + named["beta"] + named["shift"]
    # Five float32 steps on values below 32: 5 * 32 * 2^-24 < 1e-5.
    clear = np.abs(u) > 1e-5
    assert clear.mean() > 0.9
    assert_plane(outputs, compared(u, spec.compare), Kind.MASKED, spec.rows, where=clear)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", [Kind.SIGN, Kind.MASK])
def test_special_values_at_a_bound(kind, strict):
    tiny = np.float32(1e-45)
    x = np.array([[[0.0, -0.0, tiny, -tiny, np.inf, -np.inf, np.nan]]], np.float32)
    rows = Rows(1, 1, 1, 7)
    (bits,) = oracle.compute(Binarize(rows, Compare(kind, 0.0, strict), False, False), [x])
    at_zero = 0 if strict else 1
    expected = np.array([at_zero, at_zero, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(read(bits, rows).reshape(-1), expected)


def test_a_masked_sign_of_special_values_is_torchs():
    tiny = np.float32(1e-45)
    x = np.array([[[0.0, -0.0, tiny, -tiny, np.inf, -np.inf, np.nan]]], np.float32)
    rows = Rows(1, 1, 1, 7)
    out = oracle.compute(Binarize(rows, Compare(Kind.MASKED), False, False), [x])
    assert_plane(out, np.array([[[0, 0, 1, -1, 1, -1, 0]]]), Kind.MASKED, rows)
    full = oracle.compute(Binarize(rows, Compare(Kind.MASKED), False, False), [np.ones_like(x)])
    assert full[2][0] == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["dense_signs", "dense_masked", "dense_mask"])
def test_dense_floats(name, seed):
    spec, named, (y,) = run(name, seed)
    a = flat(values(named, "a", spec.activation, spec.rows))
    expected = (a @ weights(named, spec).T)[..., : spec.columns]
    for i, step in enumerate(spec.steps):
        operand = named[f"operand{i}"].astype(np.float64)
        operand = operand[..., : spec.columns]
        expected = expected * operand if step.op == "mul" else expected + operand
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["dense_bits", "dense_zeros", "dense_wide"])
def test_dense_bits(name, seed):
    spec, named, outputs = run(name, seed)
    rows, kind = spec.thresholds.rows, spec.thresholds.kind
    a = flat(values(named, "a", spec.activation, spec.rows))
    dot = a @ weights(named, spec).T
    low, width = (named[key].astype(np.int64) for key in ("lo", "width"))
    columns = np.arange(spec.padded_columns)
    flip = (named["flip"][columns // 32] >> (columns % 32).astype(np.uint32)) & 1
    expected = ((dot >= low) & (dot <= low + width)) ^ flip.astype(bool)
    if kind is not Kind.MASK:
        expected = 2.0 * expected - 1
    if kind is Kind.MASKED:
        low, width = (named[f"zero_{key}"].astype(np.int64) for key in ("lo", "width"))
        expected = expected * ~((dot >= low) & (dot <= low + width))
    spread = -(-rows.width // 32) * 32
    kept = np.concatenate([g * spread + np.arange(rows.width) for g in range(rows.groups)])
    assert_plane(outputs, expected[..., kept], kind, rows)


def test_an_empty_set_holds_no_integer():
    for bits in (16, 32):
        low, width = (np.array([value], f"{t}{bits}") for t, value in
                      (("int", np.iinfo(f"int{bits}").max), ("uint", 0)))  # fmt: skip
        dots = np.arange(-(2**14), 2**14)[:, None]
        assert not oracle.within(dots, low, width).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_value_planes(seed):
    spec, named, outputs = run("value_planes", seed)
    u = named["x"].astype(np.float64) + named["shift"]
    assert_plane(outputs[:3], np.sign(u), Kind.MASKED, spec.rows)
    for ratio, packed in zip(spec.ratios, outputs[3], strict=True):
        r = float(np.float32(ratio))
        expected = (u > r * u.max()) | (u < r * u.min())
        np.testing.assert_array_equal(flat(read(packed, spec.rows)), expected)


def test_value_masks_of_one_sign_only():
    """All values positive: the minimum is positive too, and u < r * min(u) never holds for it."""
    rows = Rows(1, 1, 1, 3)
    x = np.array([[[1.0, 2.0, 4.0]]], np.float32)
    *_, masks = oracle.compute(ValuePlanes(rows, Kind.MASKED, False, (0.75,)), [x])
    np.testing.assert_array_equal(read(masks[0], rows).reshape(-1), [0, 0, 1])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["attention_planes", "attention_planes_alone"])
def test_attention_planes(name, seed):
    spec, named, (masks,) = run(name, seed)
    q = values(named, "q", spec.query_kind, spec.q)
    k = values(named, "k", spec.key_kind, spec.q)
    scale, factor, bound = (float(v) for v in named["scalars"])
    x = np.einsum("bihd,bjhd->bhij", q, k) * scale * (factor if spec.factors == 2 else 1)
    p = np.exp(x - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    heads, n = spec.q.groups, spec.q.tokens
    if spec.bias:
        p = p + named["bias"][: heads * n * n].reshape(heads, n, n)
    bounds = [bound, *(float(np.float32(r)) * p.max() for r in spec.ratios)]
    for packed, limit in zip(masks, bounds, strict=True):
        found = read(packed, spec.rows).transpose(0, 2, 1, 3)
        # Softmax rounds to 2^-22 or so, bias and bound lie below 4: 2^-20 is clear of both.
        clear = np.abs(p - limit) > 2.0**-20
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(found[clear], (p > limit)[clear])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["attention_value", "attention_value_bits"])
def test_attention_value(name, seed):
    spec, named, outputs = run(name, seed)
    base = values(named, "v", spec.value_kind, spec.v)
    o = 0
    for g in range(spec.p_groups):
        p = read(named["p_masks"][g], spec.p)
        for r in range(spec.v_groups):
            v = base if r == 0 else base * read(named["v_masks"][r - 1], spec.v)
            scale = named["p_scale"][g] * named["v_scale"][r]
            o = o + np.einsum("bihj,bjhd->bihd", p, v) * scale[:, None]
    o = flat(o)
    if spec.compare is None:
        np.testing.assert_array_equal(outputs[0], o)
    else:
        u = o + named["shift"]
        assert_plane(outputs, compared(u, spec.compare), spec.compare.kind, spec.v)


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_matmul(seed):
    spec, named, (y,) = run("batch_matmul", seed)

    def total(name, rows, kinds):
        terms = [values(named, f"{name}{i}", kind, rows) for i, kind in enumerate(kinds)]
        scales = named[f"{name}_scale"].astype(np.float64)
        return sum(flat(t) * s for t, s in zip(terms, scales, strict=True))

    a, b = total("a", spec.a, spec.a_kinds), total("b", spec.b, spec.b_kinds)
    np.testing.assert_array_equal(y, a @ b.transpose(0, 2, 1))


@pytest.mark.parametrize("width", [1, 31, 32, 33, 63, 64, 65])
def test_signs_times_signs_have_the_parity_of_the_width(width):
    rng = np.random.default_rng(width)
    rows = Rows(1, 9, 1, width)
    planes = [pack_rows(rng.random((1, 9, width)) < 0.5, rows) for _ in range(2)]
    a, b = (oracle.plane_values({"p_bits": p}, "p", Kind.SIGN, rows)[0] for p in planes)
    assert ((a @ b.T - width) % 2 == 0).all()
