"""One profile for all property tests, and the real command for those that call it.

The profile gives the same cases on every run, and no limit of time. No test reads the records of
tuning that whoever runs them has.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from gsb_tvm.tuned import VARIABLE
from tests.commandline import CommandLine

settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def _no_records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the user's cache be an empty folder, in this process and in those it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def gsb() -> Iterator[CommandLine]:
    """The warm process that forks for each call."""
    with CommandLine() as command:
        yield command
