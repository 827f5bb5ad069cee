"""What records tell a task, and which task is worth the next trials."""

import math
from typing import Any

import pytest

from gsb_tvm.schedules.records import Key, Record
from gsb_tvm.schedules.standings import PROVEN
from gsb_tvm.tuning.tasks import Task
from gsb_tvm.tuning.workloads import Packed

KEY = Key('Kernel {"a":1}', 1, "0123456789abcdef", "haswell")
SPACE = [{"rows": rows, "method": "words"} for rows in range(1, 41)]
RULE = 10e-6


def task(calls: int = 1, space: Any = SPACE) -> Task:
    return Task(Packed(KEY.kernel), "kernel", "1 x 2", calls, KEY, space)


def record(place: int, *ratios: float, failure: str = "", **changes: Any) -> Record:
    """What is recorded of a choice whose times are shares of the rule's."""
    fields: dict[str, Any] = {
        "kernel": KEY.kernel,
        "schedule": KEY.schedule,
        "features": KEY.features,
        "cpu": KEY.cpu,
        "choice": SPACE[place],
        "seconds": tuple(RULE * ratio for ratio in ratios),
        "rule": (RULE,) * len(ratios),
        "failure": failure,
    }
    return Record(**{**fields, **changes})


def tried(*ratios: float, calls: int = 1) -> Task:
    """A task whose first choices took so many shares of the rule's time."""
    made = task(calls)
    made.add([record(place, ratio) for place, ratio in enumerate(ratios)] * PROVEN)
    return made


def test_nothing_is_known_at_first() -> None:
    new = task()
    assert (new.trials, new.best, new.gain, new.promise) == (0, 0, 1.0, 0.0)
    assert new.results == {}
    assert math.isnan(new.rule_seconds)
    assert not new.is_exhausted


def test_the_fastest_is_the_best() -> None:
    found = tried(1.0, 1.5, 0.5, 0.8)
    assert found.best == 2
    assert found.gain == pytest.approx(2.0)
    assert found.rule_seconds == pytest.approx(RULE)
    assert found.best_seconds == pytest.approx(RULE / 2)
    assert found.results == pytest.approx({0: 1.0, 1: 1.5, 2: 0.5, 3: 0.8})


def test_the_first_of_equals_is_the_best() -> None:
    assert tried(1.0, 1.0, 1.0).best == 0


def test_a_choice_counts_by_the_median_of_its_moments() -> None:
    found = tried(1.0)
    found.add([record(1, 0.9, 0.9, 0.1), record(1, 0.7), record(1, 0.8)])
    assert found.ratio(1) == pytest.approx(0.8)
    assert (found.best, found.trials) == (1, 2)


def test_a_lucky_moment_makes_a_contender() -> None:
    found = tried(1.0, 0.7)
    found.add([record(2, 0.5), record(3, 0.6), record(4, 0.8), record(5, 0.65)])
    assert (found.leader, found.best) == (2, 1)
    assert found.contenders(2) == [2, 3]
    found.add([record(2, 0.9), record(2, 0.9)])
    assert (found.leader, found.best) == (3, 1)
    assert found.contenders(9) == [3, 5]
    assert tried(1.0, 1.2).contenders(9) == []


def test_a_rule_that_is_the_best_gains_nothing() -> None:
    found = tried(1.0, 1.2)
    assert (found.gain, found.best_seconds) == (1.0, found.rule_seconds)


def test_the_rule_takes_what_it_took_at_the_quietest_moment() -> None:
    found = task()
    found.add([record(0, 1.0, seconds=(3 * RULE,), rule=(3 * RULE,)), record(1, 0.5)])
    assert found.rule_times == pytest.approx([3 * RULE, RULE])
    assert found.rule_seconds == pytest.approx(RULE)


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": 'Kernel {"a":2}'},
        {"schedule": 2},
        {"features": "f" * 16},
        {"cpu": "znver5"},
        {"choice": {"rows": 99, "method": "words"}},
        {"choice": {"rows": 2}},
        {"choice": {}},
        {"choice": {"rows": 2, "method": "words", "more": 1}},
    ],
)
def test_records_of_something_else_are_ignored(changes: dict[str, Any]) -> None:
    found = task()
    found.add([record(1, 0.5, **changes), record(1, failure="crashed", **changes)])
    assert (found.trials, found.ratios, found.failures) == (0, {}, {})


def test_the_order_of_parameters_does_not_matter() -> None:
    found = task()
    found.add([record(1, 0.5, choice={"method": "words", "rows": 2})])
    assert found.results == {1: pytest.approx(0.5)}


@pytest.mark.parametrize("order", [1, -1])
def test_a_failure_wins_over_times(order: int) -> None:
    found = tried(1.0, 0.9)
    found.add([record(2, 0.1), record(2, failure="wrong result")][::order])
    assert found.best == 1
    assert found.ratio(2) == math.inf
    assert found.results == {0: pytest.approx(1.0), 1: pytest.approx(0.9), 2: None}
    assert found.failures == {2: "wrong result"}
    assert found.trials == 3


def test_a_task_without_open_choices_is_exhausted() -> None:
    small = task(space=SPACE[:3])
    small.add([record(0, 1.0), record(1, failure="crashed")])
    assert not small.is_exhausted
    assert small.promise > 0
    small.add([record(2, 0.5)])
    assert small.is_exhausted
    assert small.promise == 0


def test_nothing_is_promised_before_the_rule_is_measured() -> None:
    found = task()
    found.add([record(1, 0.5)])
    assert found.promise == 0


def test_what_takes_longer_promises_more() -> None:
    assert tried(1.0, calls=12).promise == pytest.approx(12 * tried(1.0).promise)


def test_promise_fades_where_nothing_is_found() -> None:
    promises = [tried(*[1.0] * count).promise for count in (1, 8, 30)]
    assert promises == sorted(promises, reverse=True)
    assert promises[-1] > 0


def test_progress_promises_more_than_none() -> None:
    still, better = tried(*[1.0] * 30), tried(*[1.0] * 29, 0.4)
    assert better.promise > still.promise


def test_old_progress_is_forgotten() -> None:
    recent = tried(*[1.0] * 20, *[0.5] * 4)
    old = tried(1.0, *[0.5] * 39)
    assert len(old.results) == len(SPACE)
    long_ago = tried(1.0, *[0.5] * 38)
    assert recent.promise > 2 * long_ago.promise


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("times", [(), (1.0,)])
def test_a_rule_that_failed_keeps_nobody_waiting(times: tuple[float, ...], order: int) -> None:
    """Records may come from anywhere; a promise is a number whatever they say."""
    found = task()
    others = [record(1, t) for t in times * PROVEN]
    found.add([record(0, 1.0), record(0, failure="crashed"), *others][::order])
    assert found.gain == 1.0
    assert found.promise > 0
    assert found.best == (1 if times else 0)
