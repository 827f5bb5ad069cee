import pytest

from measuring.samples import ENOUGH_QUIET, figures, timed


def test_quiet_runs_count_where_there_are_enough():
    quiet = [1.0] * ENOUGH_QUIET
    found = figures([9.0, 9.0, 9.0, *quiet], quiet)
    assert (found.median_ms, found.high_ms, found.runs, found.quiet) == (1, 1, 8, 5)


def test_all_runs_count_where_few_are_quiet():
    found = figures([1.0, 2.0, 3.0, 4.0, 5.0], [1.0])
    assert (found.low_ms, found.median_ms, found.high_ms, found.best_ms) == (2, 3, 4, 1)


@pytest.mark.parametrize(("seconds", "most", "runs"), [(0, 9, 1), (60, 3, 3)])
def test_runs_end_with_the_time_or_the_count(seconds, most, runs):
    calls = []
    every, quiet = timed(lambda: calls.append(0), seconds, most)
    assert len(every) == len(calls) == runs
    assert set(quiet) <= set(every)
