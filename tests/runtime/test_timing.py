"""Series of runs and their summary; no test looks at how long anything takes."""

import numpy as np
import pytest

from gsb_tvm.runtime.timing import latency, resident_bytes, timed


def test_a_number_of_runs_is_kept():
    calls = []
    found = timed(lambda: calls.append(0), seconds=0.0, runs=7)
    assert len(calls) == len(found.seconds) == len(found.preempted) == 7
    assert (found.seconds >= 0).all()


def test_there_is_a_run_when_no_time_is_left():
    assert len(timed(lambda: None, seconds=-1.0).seconds) == 1


def test_runs_go_on_until_the_time_is_over():
    calls = []
    found = timed(lambda: calls.append(0), seconds=0.01)
    assert len(calls) == len(found.seconds) > 1
    assert found.seconds.sum() < 0.01 + found.seconds[-1]


def test_percentiles_are_of_all_runs():
    found = latency(np.arange(101) / 1e3)  # 0 to 100 ms
    assert (found.min, found.p5, found.p25, found.median) == pytest.approx((0, 5, 25, 50))
    assert (found.p75, found.p95, found.p99, found.max) == pytest.approx((75, 95, 99, 100))
    assert found.mean == pytest.approx(50)
    assert found.spread == pytest.approx(1)


def test_resident_memory_grows_with_what_is_written():
    before = resident_bytes()
    array = np.ones(32 << 20, np.uint8)
    assert resident_bytes() - before > array.nbytes / 2
