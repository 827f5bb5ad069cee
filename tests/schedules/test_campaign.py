"""The campaign finds what is wrong, draws what it promises, and finds nothing wrong."""

from typing import Any

import numpy as np
import pytest

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.specs import Kind, encode
from gsb_tvm.targets import resolve
from tests.schedules import campaign
from tests.schedules.levels import AMX, ARM, LEVELS, is_emulated, runnable, target_of

HOST = resolve("native")
PLAIN = resolve("llvm -mcpu=x86-64")


def drawn(name: str, count: int) -> list[Any]:
    family = campaign.FAMILIES[name]
    cases = campaign.sample(family.cases(PLAIN), count, 0)
    widths = campaign.widths(len(cases), np.random.default_rng(0))
    return [
        family.spec(campaign.resized(case, width))
        for case, width in zip(cases, widths, strict=True)
    ]


@pytest.mark.parametrize("name", campaign.FAMILIES)
def test_every_family_meets_the_edges_and_every_kind(name: str) -> None:
    specs = drawn(name, 80)
    assert len(specs) == 80
    text = " ".join(encode(spec) for spec in specs)
    assert all(f'"width":{edge}' in text for edge in (24, 31, 33, 63, 64, 65, 4096))
    kinds = [Kind.SIGN, Kind.MASKED] if name == "value_planes" else list(Kind)
    assert all(f'"{kind}"' in text for kind in kinds)
    assert all(f'"batch":{batch}' in text for batch in (1, 2))
    assert len({spec.inputs()[0][1] for spec in specs}) > 40
    assert max(campaign.work(spec) for spec in specs) <= campaign.MOST_WORK


@pytest.mark.parametrize("name", campaign.FAMILIES)
def test_a_wrong_output_is_a_mismatch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = oracle.compute

    def wrong(spec: Any, inputs: Any) -> Any:
        outputs = right(spec, inputs)
        last = outputs[-1].reshape(-1)
        last[0] = last[0] + last.dtype.type(1)
        return outputs

    monkeypatch.setattr(oracle, "compute", wrong)
    profile = HOST if campaign.FAMILIES[name].has(HOST) else runnable(target_of(ARM[0]))
    result = campaign.run_family(name, profile, 2 * campaign.DRAWS)
    assert (result.kernels, result.cases) == (2, 2 * campaign.DRAWS)
    assert len(result.wrong) == result.cases


@pytest.mark.slow
@pytest.mark.parametrize("level", [*LEVELS, AMX, *ARM[:2]])
def test_no_mismatch(level: str) -> None:
    is_slow = level == AMX or is_emulated(runnable(target_of(level)))  # tiles may be emulated
    cases = 600 if is_slow else 2000
    results = dict(campaign.run_level(level, cases))
    assert {name: result.wrong for name, result in results.items() if result.wrong} == {}
    assert sum(result.cases for result in results.values()) >= cases
