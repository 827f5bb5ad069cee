"""What may be chosen of a dense layer's kernel: every choice computes what the oracle says."""

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.schedules import families
from gsb_tvm.schedules.choices import as_parameters
from gsb_tvm.schedules.dense import Method, Parameters, rule, space
from gsb_tvm.schedules.dense.tiles import Split
from gsb_tvm.targets import Profile
from tests.schedules import levels
from tests.schedules.cuts import CUTS, Cut
from tests.schedules.test_dense import (
    EPILOGUES,
    FILLS,
    Compiled,
    arguments,
    make_spec,
    profile_of,
)

CPUS = (*levels.LEVELS, levels.AMX, levels.ARM[0])
MIDDLE = "x86-64-v2"  # shuffles of 128 bits
SHAPES = [(198, 384, 384), (198, 384, 1536), (198, 1536, 384), (1, 384, 1000), (18, 27, 40)]


def layer(profile: Profile, tokens: int, features: int, columns: int) -> Dense:
    rows = Rows(1, tokens, 1, features)
    return make_spec(profile, rows, Kind.SIGN, Kind.SIGN, "plain", (1, columns))


@pytest.mark.parametrize("cpu", [*CPUS, MIDDLE])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rules_choice_is_first_of_some_hundred(cpu: str, shape: tuple[int, int, int]) -> None:
    profile = profile_of(cpu)
    spec = layer(profile, *shape)
    found = families.space(spec, profile)
    assert found[0] == families.rule(spec, profile)
    assert rule(spec, profile) in [*space(spec, profile), as_parameters(found[0], Parameters)]
    assert families.arranged(spec, profile, found[0]) == spec
    assert 20 <= len(found) <= 400
    if spec.rows.tokens == 198:
        assert len(found) >= 50


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("x86-64", {"carry_save 4", "bytes 4"}),
        (MIDDLE, {"carry_save 4", "bytes 4", "lookup 16"}),
        ("haswell", {"carry_save 8", "bytes 8", "lookup 32"}),
        ("skylake-avx512", {"carry_save 16", "bytes 16", "lookup 64"}),
        ("znver5", {"carry_save 16", "bytes 16", "lookup 64", "words 16", "words 8"}),
        (
            "sapphirerapids",
            {"carry_save 16", "bytes 16", "lookup 64", "words 16", "words 8", "tiles"},
        ),
        ("cortex-a72", {"carry_save 4", "bytes 4", "pairs", "slices"}),
        ("cortex-a53", {"carry_save 4", "bytes 4", "pairs", "slices"}),
    ],
)
def test_what_is_tried_on_which_machine(cpu: str, expected: set[str]) -> None:
    arch = "aarch64" if cpu in levels.ARM else "x86_64"
    profile = levels.profile_of(f"llvm -mtriple={arch}-linux-gnu -mcpu={cpu}")
    found = Counter(
        " ".join(str(part) for part in (chosen.method, chosen.lanes) if part)
        for chosen in space(layer(profile, 198, 384, 384), profile)
    )
    assert set(found) == expected


def test_what_no_method_can_do_is_left_out() -> None:
    """Several counts a product, long rows, columns that fill no block, masked results."""
    profile = profile_of("cortex-a72")

    def methods(weight: Kind, epilogue: str, features: int, columns: int) -> set[Method]:
        rows = Rows(1, 70, 1, features)
        spec = make_spec(profile, rows, Kind.SIGN, weight, epilogue, (1, columns))
        return {chosen.method for chosen in space(spec, profile)}

    counted = {Method.BYTES, Method.CARRY_SAVE}
    assert methods(Kind.MASKED, "sign", 384, 128) == {Method.BYTES}
    assert methods(Kind.SIGN, "sign", 2**14 - 32, 128) == counted
    assert methods(Kind.SIGN, "sign", 384, 64) == counted | {Method.PAIRS}
    assert methods(Kind.SIGN, "masked", 384, 128) == counted | {Method.PAIRS}
    assert methods(Kind.SIGN, "sign", 384, 128) == counted | {Method.PAIRS, Method.SLICES}
    assert methods(Kind.SIGN, "sign", 33, 128) == counted | {Method.PAIRS}


@cache
def target(cpu: str) -> Profile:
    return levels.runnable(levels.target_of(cpu))


@st.composite
def cases(draw: Any, profile: Profile) -> tuple[Dense, dict[str, Any]]:
    """A spec of any kind and ragged sizes, and one of its choices; each method as often."""
    rows = Rows(
        draw(st.integers(1, 2)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 2)),
        draw(st.sampled_from((1, 31, 33, 64, 192, 255))),
    )
    columns = draw(st.sampled_from([(1, 1), (1, 40), (3, 33), (1, 128), (2, 128)]))
    kinds = draw(st.sampled_from(Kind)), draw(st.sampled_from([Kind.SIGN, Kind.MASKED]))
    spec = make_spec(profile, rows, *kinds, draw(st.sampled_from(EPILOGUES)), columns)
    choices = families.space(spec, profile)
    method = draw(st.sampled_from(sorted({choice["method"] for choice in choices})))
    return spec, draw(st.sampled_from([c for c in choices if c["method"] == method]))


def check(spec: Dense, choice: dict[str, Any], profile: Profile, cut: Cut, number: int) -> None:
    wanted = families.arranged(spec, profile, choice)
    compiled = Compiled(wanted, profile, cut, families.kernel(spec, profile, choice))
    rng = np.random.default_rng(number)
    for how in FILLS[: 1 if levels.is_emulated(profile) else 3]:
        compiled.check(arguments(wanted, rng, how))


@pytest.mark.parametrize("cpu", [*CPUS, MIDDLE])
def test_every_choice_computes_the_same(cpu: str) -> None:
    profile = target(cpu)

    @seed(7)
    @settings(
        max_examples=6,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(profile), cut=CUTS, number=st.integers(0, 2**32))
    def run(case: Any, cut: Cut, number: int) -> None:
        check(*case, profile, cut, number)

    run()


@pytest.mark.parametrize("cpu", [levels.AMX, "haswell", levels.ARM[0]])
def test_column_blocks_are_shared(cpu: str) -> None:
    """Parts with no block of their own, a narrow block at the end, and one flag of zeros."""
    profile = target(cpu)
    rows = Rows(2, 3, 1, 65)
    spec = make_spec(profile, rows, Kind.MASKED, Kind.SIGN, "masked", (3, 65))
    found = [c for c in families.space(spec, profile) if c.get("split") == Split.COLUMNS]
    for parts in (2, 64):
        check(spec, found[parts % len(found)], profile, Cut(parts), parts)


def test_parameters_are_numbers_and_words() -> None:
    for cpu in CPUS:
        profile = profile_of(cpu)
        spec = layer(profile, 198, 384, 384)
        for choice in families.space(spec, profile):
            assert {type(value) for value in choice.values()} <= {int, str}
            assert families.variant(spec, profile, choice) == choice["method"]
