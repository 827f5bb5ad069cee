"""Whatever is chosen of a kernel, it computes what the oracle says."""

from typing import Any

import numpy as np
import pytest
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Binarize,
    Compare,
    Kind,
    Patches,
    ValuePlanes,
)
from gsb_tvm.schedules.families import kernel, rule, space
from tests.schedules import campaign
from tests.schedules import test_patches as patches
from tests.schedules.cuts import CUTS, Cut
from tests.schedules.levels import ARM, compiled, is_emulated, profile_of, runnable, target_of

PATCHES = campaign.Family(
    lambda profile: st.sampled_from(patches.SHAPES) | patches.SPECS,
    lambda spec, rng, n: patches.data(spec, rng, exact=True),
)
PACKED = ("attention_planes", "attention_value", "batch_matmul", "binarize", "value_planes")
FAMILIES = {"patches": PATCHES} | {name: campaign.FAMILIES[name] for name in PACKED}
SIGNS, ZEROS = (Kind.SIGN,), (Kind.MASKED,) * 3
MODEL = [
    AttentionPlanes(Rows(1, 198, 6, 64), *SIGNS * 2, 1, True, 10.0, True, True, (0.7, 0.9)),
    AttentionPlanes(Rows(1, 300, 3, 128), Kind.MASKED, Kind.MASK, 1, True, 10.0, True, True, ()),
    AttentionValue(Rows(1, 198, 6, 64), Kind.MASKED, 3, 3, True, Compare(Kind.MASKED)),
    BatchMatmul(Rows(6, 198, 1, 64), Rows(6, 198, 1, 64), SIGNS, SIGNS),
    BatchMatmul(Rows(6, 198, 1, 64), Rows(6, 198, 1, 64), ZEROS, ZEROS),
    Binarize(Rows(1, 198, 1, 384), Compare(Kind.MASKED), True, True, 1e-12),
    Binarize(Rows(1, 198, 1, 384), Compare(Kind.SIGN), False, True),
    Patches(1, 3, (224, 224), (16, 16), 384, lattice=True, bias=True, position=True, prefix=2),
    ValuePlanes(Rows(1, 198, 6, 64), Kind.MASKED, True, (0.7, 0.9)),
]
"""What a vision transformer asks for."""
LEVELS = ("icelake-server", "skylake-avx512", "haswell", "x86-64", ARM[0])
EXAMPLES = 3  # kernels of a family on a level; two under emulation, where linking takes longer
DRAWS = 3


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("spec", MODEL, ids=str)
def test_a_space_begins_with_the_rule_and_is_not_too_large(spec: Any, level: str) -> None:
    profile = profile_of(target_of(level))
    choices = space(spec, profile)
    assert choices[0] == rule(spec, profile)
    assert 10 <= len(choices) <= 300
    by_rule = kernel(spec, profile, choices[0])
    assert tvm_ffi.structural_equal(by_rule, kernel(spec, profile))
    other = kernel(spec, profile, choices[-1])
    assert not tvm_ffi.structural_equal(other, by_rule)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_choice_computes_what_the_oracle_says(name: str, level: str) -> None:
    profile, family = runnable(target_of(level)), FAMILIES[name]
    examples = EXAMPLES - is_emulated(profile)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(family.cases(profile), CUTS, st.data())
    def examine(case: Any, cut: Cut, data: st.DataObject) -> None:
        spec = family.spec(case)
        choice = data.draw(st.sampled_from(space(spec, profile)))
        main = compiled(cut(kernel(spec, profile, choice)), profile)["main"]
        rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
        for n in range(DRAWS):
            inputs = family.data(case, rng, n)
            assert not list(campaign.differing(spec, main, inputs)), choice

    examine()
