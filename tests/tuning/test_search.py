"""Proposals: each choice once, the same for the same seed, near what was good."""

import random
from typing import Any

import pytest

from gsb_tvm.tuning import search
from gsb_tvm.tuning.search import Search

BATCH = 8
SPACE = [
    {"method": method, "rows": rows, "vectors": vectors, **({"tile": 64} if rows > 2 else {})}
    for method in ("words", "tiles", "lookup")
    for rows in range(1, 9)
    for vectors in range(1, 7)
]


def cost(choice: dict[str, Any]) -> float:
    far = abs(choice["rows"] - 6) * 0.1 + abs(choice["vectors"] - 4) * 0.15
    return 1 + far + (choice["method"] != "words") * 0.5


def run(space: list[dict[str, Any]], seed: int, most: int, told: int = 1) -> list[int]:
    """Proposals in order, the first ``told`` choices being known from the start."""
    found = Search(space, seed, BATCH)
    found.tell({place: cost(space[place]) for place in range(told)})
    order: list[int] = []
    while len(order) < most and (proposed := found.propose(BATCH)):
        assert len(proposed) <= BATCH
        order += proposed
        found.tell({place: cost(space[place]) for place in proposed})
    return order


def test_the_same_seed_gives_the_same_order() -> None:
    first, again, other = (run(SPACE, seed, 48) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_all_of_a_space_is_proposed_once() -> None:
    assert sorted(run(SPACE, 0, len(SPACE))) == list(range(1, len(SPACE)))


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_small_spaces(size: int) -> None:
    assert sorted(run(SPACE[:size], 0, 99)) == list(range(1, size))


def test_what_is_known_is_not_proposed() -> None:
    assert min(run(SPACE, 1, 40, told=20)) >= 20


def best_after(order: list[int], trials: int) -> float:
    return min(cost(SPACE[place]) for place in order[:trials])


def test_the_best_is_found_sooner_than_by_chance() -> None:
    pytest.importorskip("xgboost")
    trials = 48
    found = [best_after(run(SPACE, seed, trials), trials) for seed in range(5)]
    chance = [best_after(random.Random(seed).sample(range(144), 144), trials) for seed in range(5)]
    assert sum(found) < sum(chance)
    assert min(found) == 1.0


def test_failures_are_left_behind() -> None:
    found = Search(SPACE, 0, BATCH)
    found.tell({0: 1.0})
    order: list[int] = []
    for _ in range(8):
        proposed = found.propose(BATCH)
        order += proposed
        works = {p: SPACE[p]["method"] == "words" for p in proposed}
        found.tell({p: cost(SPACE[p]) if works[p] else None for p in proposed})
    assert len(set(order)) == len(order)
    late = [SPACE[place]["method"] for place in order[32:]]
    assert late.count("words") > len(late) / 2


def test_lost_trials_may_come_again() -> None:
    found = Search(SPACE[:9], 0, BATCH)
    found.tell({0: 1.0})
    lost = found.propose(BATCH)
    found.tell({})
    seen: list[int] = []
    while proposed := found.propose(BATCH):
        seen += proposed
        found.tell({place: 1.0 for place in proposed})
    assert set(lost) <= set(seen)


def test_without_xgboost_candidates_are_ranked_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "has_cost_model", lambda: False)
    first, again = run(SPACE, 3, 48), run(SPACE, 3, 48)
    assert first == again
    assert len(set(first)) == len(first)
