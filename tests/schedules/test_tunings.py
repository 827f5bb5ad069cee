"""What is chosen from records, and what is not."""

import random
from typing import Any

import pytest

from gsb_tvm.schedules.records import Record, feature_set
from gsb_tvm.schedules.standings import PROVEN
from gsb_tvm.schedules.tunings import MARGIN, Tuned, Tunings
from gsb_tvm.targets import resolve

PROFILE = resolve("llvm -mcpu=haswell")
KERNEL = 'Kernel {"a":1}'
SPACE = [{"rows": rows} for rows in (3, 1, 2, 4)]
BY_RULE = Tuned(SPACE[0], 1.0)


def record(rows: int, *ratios: float, failure: str = "", **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "kernel": KERNEL,
        "schedule": 1,
        "features": feature_set(PROFILE),
        "cpu": "haswell",
        "choice": {"rows": rows},
        "seconds": tuple(1e-6 * ratio for ratio in ratios),
        "rule": (1e-6,) * len(ratios),
        "failure": failure,
    }
    return Record(**{**fields, **changes})


def found(*sources: list[Record], version: int = 1) -> Tuned | None:
    """What follows from records, each of which stands for as many moments as it takes."""
    often = [source * PROVEN for source in sources]
    return Tunings(PROFILE, *often).find(KERNEL, version, lambda: SPACE)


def test_the_fastest_is_chosen() -> None:
    tuned = found([record(3, 1.0), record(1, 0.5), record(2, 0.25), record(4, 2.0)])
    assert tuned is not None
    assert tuned.choice == {"rows": 2}
    assert tuned.gain == pytest.approx(4.0)


def test_nothing_is_known_of_other_kernels() -> None:
    assert found() is None
    assert found([]) is None
    assert found([record(1, 0.5, kernel='Kernel {"a":2}')]) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"features": "0123456789abcdef"},
        {"features": feature_set(resolve("llvm -mcpu=haswell -mattr=-fma"))},
        {"cpu": "broadwell"},
        {"cpu": ""},
        {"schedule": 2},
        {"choice": {"rows": 99}},
        {"choice": {}},
        {"choice": {"rows": 1, "more": 2}},
        {"choice": {"rows": "1"}},
    ],
)
def test_what_was_not_measured_here_is_never_used(changes: dict[str, Any]) -> None:
    assert found([record(1, 0.1, **changes)]) is None
    tuned = found([record(1, 0.1, **changes), record(2, 0.5)])
    assert tuned is not None
    assert tuned.choice == {"rows": 2}


def test_records_of_an_older_version_are_void() -> None:
    assert found([record(1, 0.5)], version=2) is None


def test_another_target_does_not_see_them() -> None:
    tunings = Tunings(resolve("llvm -mcpu=znver5"), [record(1, 0.5)])
    assert len(tunings) == 0
    assert tunings.find(KERNEL, 1, lambda: SPACE) is None


def test_the_first_source_that_knows_a_kernel_decides() -> None:
    mine, theirs = [record(1, 0.9)], [record(2, 0.1)]
    first, second = found(mine, theirs), found(theirs, mine)
    assert first is not None
    assert first.choice == {"rows": 1}
    assert second is not None
    assert second.choice == {"rows": 2}


@pytest.mark.parametrize(
    "useless",
    [
        record(1, failure="crashed"),
        record(99, 0.1),
        record(1, 0.1, cpu="broadwell"),
        record(1, 0.1, schedule=2),
        record(1, 0.1, kernel="Another {}"),
    ],
)
def test_a_source_that_has_nothing_to_say_leaves_it_to_the_next(useless: Record) -> None:
    tuned = found([useless], [record(2, 0.5)])
    assert tuned is not None
    assert tuned.choice == {"rows": 2}


def test_a_source_may_say_that_the_rule_is_the_best() -> None:
    assert found([record(3, 1.0), record(1, 1.2)], [record(2, 0.1)]) == BY_RULE


@pytest.mark.parametrize(
    ("ratio", "rows"), [(MARGIN, 1), (MARGIN - 1e-3, 1), (MARGIN + 1e-3, 3), (1.0, 3), (1.5, 3)]
)
def test_less_than_the_margin_is_noise(ratio: float, rows: int) -> None:
    rule = record(3, seconds=(1.0,), rule=(1.0,))
    tuned = found([rule, record(1, seconds=(ratio,), rule=(1.0,))])
    assert tuned is not None
    assert tuned.choice == {"rows": rows}
    assert tuned.gain >= 1


def test_a_choice_that_failed_once_is_never_used() -> None:
    tuned = found([record(1, 0.1), record(1, failure="wrong result"), record(2, 0.5)])
    assert tuned is not None
    assert tuned.choice == {"rows": 2}


def test_nothing_but_failures_is_nothing() -> None:
    assert found([record(1, failure="crashed"), record(3, failure="crashed")]) is None


def test_of_equals_the_first_in_the_space_whatever_their_order_on_record() -> None:
    records = [record(4, 0.5), record(2, 0.5), record(1, 0.5), record(3, 1.0), record(2, 0.5)]
    for seed in range(10):
        shuffled = random.Random(seed).sample(records, len(records))
        assert found(shuffled) == Tuned({"rows": 1}, 2.0)


def test_the_choice_is_as_the_space_has_it() -> None:
    """A file may spell 1 as 1.0: parameters are of the types that the family expects."""
    tuned = found([record(1, 0.5, choice={"rows": 1.0})])
    assert tuned is not None
    assert type(tuned.choice["rows"]) is int


def test_the_space_is_made_only_where_there_are_records() -> None:
    def space() -> list[dict[str, Any]]:
        raise AssertionError("made for nothing")

    assert Tunings(PROFILE, [record(1, 0.5)]).find("Another {}", 1, space) is None


def test_its_length_is_the_number_of_kernels() -> None:
    more = [record(1, 0.5, kernel="B {}"), record(1, 0.5, cpu="broadwell", kernel="C {}")]
    assert len(Tunings(PROFILE, [record(1, 0.5), record(2, 0.5)], [record(1, 0.9), *more])) == 2


def test_a_lucky_moment_is_not_enough() -> None:
    lucky = [record(1, 0.1)] * (PROVEN - 1)
    find = Tunings(PROFILE, [*lucky, *[record(2, 0.5)] * PROVEN]).find
    tuned = find(KERNEL, 1, lambda: SPACE)
    assert tuned is not None
    assert tuned.choice == {"rows": 2}
    assert Tunings(PROFILE, lucky).find(KERNEL, 1, lambda: SPACE) == BY_RULE
