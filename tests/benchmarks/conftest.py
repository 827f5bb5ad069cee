import pytest

from comparison.jobs import Job


@pytest.fixture
def job():
    """Makes a job of two threads; what does not matter is empty."""

    def make(**fields):
        empty = dict.fromkeys(("model", "preset", "images", "calibration", "work"), "")
        return Job(
            **{"engine": "ours", **empty, "batch": 1, "target": "native", "isa": "native"}
            | {"cores": (0, 1)}
            | fields
        )

    return make
