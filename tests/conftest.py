"""One profile for all property tests, and the real command for those that call it.

The profile gives the same cases on every run, and no limit of time.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.commandline import CommandLine

settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


@pytest.fixture(scope="module")
def gsb() -> Iterator[CommandLine]:
    """The warm process that forks for each call."""
    with CommandLine() as command:
        yield command
