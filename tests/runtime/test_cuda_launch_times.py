"""Which launches are timed together."""

import pytest

from gsb_tvm.runtime.cuda.launch_times import units
from gsb_tvm.runtime.metadata import Launch


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ([], []),
        ([[0], [1], [2]], [[0], [1], [2]]),
        ([[0], [0], [1]], [[0, 1], [2]]),  # a step of two launches
        ([[0, 1], [2]], [[0], [1]]),  # a launch of two steps
        ([[0, 1], [0, 1], [2]], [[0, 1], [2]]),  # two such side by side
        ([[0], [1], [0], [1], [2]], [[0, 1, 2, 3], [4]]),  # in turn
        ([[0], [1], [2], [1], [3]], [[0], [1, 2, 3], [4]]),  # one within another
    ],
)
def test_units_are_whole_steps(steps, wanted):
    launches = [Launch("f", (1, 1, 1), (32, 1, 1), (), tuple(each)) for each in steps]
    assert [list(unit) for unit in units(launches)] == wanted
