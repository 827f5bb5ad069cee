"""Packed operators become calls of kernels, one for each spec; floats stay."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op
from tvm_ffi import structural_equal

from gsb_tvm.dialect.phases import SPEC
from gsb_tvm.dialect.specs import decode
from gsb_tvm.passes.lower_packed import OPAQUE, LowerPacked
from gsb_tvm.passes.pack_attention import PackAttention
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.targets import resolve
from gsb_tvm.testing import assert_leaves_alone, module_of, operators, run_module
from tests.passes.graphs import Attention, const, quarters, recognised, through, two_level
from tests.passes.lowering import PROFILE, kernels, run_compiled


def layers(*widths, k=33):
    """One layer of the sign of x for each number of columns, put side by side."""

    def build(e, x):
        plane = e(op.sign(x))
        parts = [
            e(op.matmul(plane, const(two_level(k, n, number=i)))) for i, n in enumerate(widths)
        ]
        return e(op.tanh(e(op.concat(parts, 2))))

    return through(recognised({"x": (2, 3, k)}, build), PackDense(PROFILE))


def families(module):
    specs = [decode(str(func.attrs[SPEC])) for func in kernels(module).values()]
    return sorted(type(spec).__name__ for spec in specs)


def test_equal_specs_share_one_kernel():
    before = layers(8, 8, 7)
    text = before.script()
    after = LowerPacked(PROFILE)(before)
    assert before.script() == text
    relax.analysis.well_formed(after)
    assert operators(after)["relax.call_tir"] == operators(before)["gsb.dense"] + 3
    assert families(after) == ["Binarize", "Dense", "Dense"]
    assert operators(after)["relax.tanh"] == 1
    assert structural_equal(LowerPacked(PROFILE)(after), after)


@pytest.mark.parametrize(
    ("cpu", "tokens", "word"),
    [
        ("znver5", 64, "words"),
        ("haswell", 64, "lookup"),
        ("x86-64", 64, "carry_save"),
        ("sapphirerapids", 64, "tiles"),
        ("sapphirerapids", 1, "words"),
    ],
)
def test_a_kernels_name_says_how_it_multiplies(cpu, tokens, word):
    profile = resolve(f"llvm -mtriple=x86_64-linux-gnu -mcpu={cpu}")

    def build(e, x):
        plane = e(op.sign(x))
        return e(op.matmul(plane, const(two_level(384, 384))))

    module = through(recognised({"x": (1, tokens, 384)}, build), PackDense(profile))
    names = [var.name_hint for var in LowerPacked(profile)(module).functions]
    assert sorted(names) == ["binarize", f"dense_{word}", "main"]


def test_kernels_are_marked_for_the_passes_that_follow():
    for func in kernels(LowerPacked(PROFILE)(layers(8))).values():
        assert int(func.attrs["op_pattern"]) == OPAQUE
        assert "global_symbol" not in func.attrs
        assert bool(func.attrs["tirx.noalias"])


@pytest.mark.parametrize("k", [1, 31, 32, 33, 63, 64, 65])
def test_kernels_compute_what_the_oracle_says(k):
    if k == 1:  # one row is no binary weight: nothing to lower
        before = recognised({"x": (2, 3, 1)}, lambda e, x: e(op.sign(x)))
        assert_leaves_alone(LowerPacked(PROFILE), before)
        return
    before, x = layers(8, k=k), quarters(2, 3, k)
    # tanh is TVM's on both sides, at another optimisation level: a few last places.
    found, (expected,) = run_compiled(LowerPacked(PROFILE)(before), x), run_module(before, x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_every_operator_of_an_attention_has_a_kernel():
    options = Attention(tokens=9)
    before = through(options.module(), PackAttention())
    after = LowerPacked(PROFILE)(before)
    assert not any(name.startswith("gsb.") for name in operators(after))
    expected = ["AttentionPlanes", "AttentionValue", "Binarize", "ValuePlanes"]
    assert families(after) == expected
    arrays = options.arrays()
    # Masks of p agree (no p of this seed lies at a bound); sums of products are exact.
    np.testing.assert_array_equal(run_compiled(after, *arrays), run_module(before, *arrays)[0])


def test_a_module_without_packed_operators_stays():
    module = module_of({"x": (2, 3)}, lambda e, x: e(op.tanh(x)))
    assert_leaves_alone(LowerPacked(PROFILE), module)
