"""Packed operators become calls of kernels, one for each spec; floats stay."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op
from tvm_ffi import structural_equal

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.ops import spec_of
from gsb_tvm.dialect.phases import SPEC, TUNED
from gsb_tvm.dialect.specs import Dense, Kind, decode, encode
from gsb_tvm.passes.fold_thresholds import FoldThresholds
from gsb_tvm.passes.fuse_dense_steps import FuseDenseSteps
from gsb_tvm.passes.lower_packed import OPAQUE, LowerPacked
from gsb_tvm.passes.pack_attention import PackAttention
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.schedules.choices import text_of
from gsb_tvm.schedules.families import space, version
from gsb_tvm.schedules.records import Record, feature_set
from gsb_tvm.schedules.standings import PROVEN
from gsb_tvm.schedules.tunings import Tunings
from gsb_tvm.targets import resolve
from gsb_tvm.testing import assert_leaves_alone, module_of, operators, run_module
from tests.passes.graphs import Attention, bindings, const, quarters, recognised, through, two_level
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


def three_layers(e, x):
    """Masked weights and float steps, thresholds, and a scale alone."""
    masked = two_level(65, 40) * np.random.default_rng(2).integers(0, 2, (65, 40))
    y = e(op.matmul(e(op.sign(x)), const(masked)))
    y = e(op.add(e(op.add(y, const(np.arange(40) / 4))), const(quarters(2, 5, 40, number=3))))
    y = e(op.matmul(e(op.sign(y)), const(two_level(40, 130, number=4))))
    y = e(op.add(y, const(np.linspace(-3, 3, 130))))
    return e(op.matmul(e(op.sign(y)), const(two_level(130, 33, number=5))))


def packed_layers():
    passes = PackDense(PROFILE), FuseDenseSteps(), FoldThresholds()
    return through(recognised({"x": (2, 5, 65)}, three_layers), *passes)


def records(module, choose):
    """Of every dense layer: what ``choose(space)`` gives is twice as fast as the rule's choice."""
    key = {"features": feature_set(PROFILE), "cpu": PROFILE.mcpu}
    found = []
    for call in bindings(module, "gsb.dense"):
        spec = spec_of(call)
        named = {"kernel": encode(spec), "schedule": version(spec, PROFILE)}
        choice = choose(space(spec, PROFILE))
        found.append(Record(**named, **key, choice=choice, seconds=(1.0,), rule=(2.0,)))
    return Tunings(PROFILE, found * PROVEN)


@pytest.mark.parametrize(("column_tile", "split"), [(128, "tokens"), (64, "columns")])
def test_constants_are_laid_out_as_a_recorded_choice_wants_them(column_tile, split):
    before, x = packed_layers(), quarters(2, 5, 65)
    specs = [spec_of(call) for call in bindings(before, "gsb.dense")]
    assert {spec.column_tile for spec in specs} == {32}
    assert [spec.thresholds is not None for spec in specs] == [False, True, False]
    assert specs[0].weight is Kind.MASKED

    chosen = []

    def choose(choices):
        """One of the widest columns that a space has."""
        fitting = [c for c in choices if c["split"] == split and c["column_tile"] <= column_tile]
        chosen.append(max(fitting, key=lambda choice: choice["column_tile"]))
        return chosen[-1]

    text = before.script()
    after = LowerPacked(PROFILE, records(before, choose))(before)
    assert before.script() == text
    relax.analysis.well_formed(after)
    found = [
        (decode(str(func.attrs[SPEC])), str(func.attrs[TUNED]))
        for func in kernels(after).values()
        if TUNED in func.attrs
    ]
    assert sorted(choice for _, choice in found) == sorted(map(text_of, chosen))
    assert all(f"column_tile={spec.column_tile}" in choice for spec, choice in found)
    assert max(spec.column_tile for spec, _ in found) == column_tile
    by_rule = run_compiled(LowerPacked(PROFILE)(before), x)
    np.testing.assert_array_equal(run_compiled(after, x), by_rule)
    np.testing.assert_array_equal(by_rule, run_module(before, x)[0])


def test_a_recorded_method_gives_the_kernel_its_name():
    before = layers(40)

    def choose(choices):
        return next(choice for choice in choices if choice["method"] == "bytes")

    after = LowerPacked(PROFILE, records(before, choose))(before)
    assert "dense_bytes" in kernels(after)


def test_what_is_no_constant_keeps_its_layout():
    """The rule's kernel serves it."""
    spec = Dense(Rows(1, 3, 1, 33), Kind.SIGN, Kind.SIGN, 40, 32)
    builder = relax.BlockBuilder()
    args = [relax.Var(name, relax.TensorType(shape, dtype)) for name, shape, dtype in spec.inputs()]
    with builder.function("main", args):
        with builder.dataflow():
            result = builder.emit_output(ops.packed(spec, args))
        builder.emit_func_output(result)
    before = builder.get()
    tunings = records(before, lambda choices: next(c for c in choices if c["column_tile"] == 64))
    assert len(tunings) == 1
    (func,) = kernels(LowerPacked(PROFILE, tunings)(before)).values()
    assert TUNED not in func.attrs
    assert decode(str(func.attrs[SPEC])) == spec
