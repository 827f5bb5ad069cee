"""One profile for all property tests, and the real command for those that call it.

The profile gives the same cases on every run, and no limit of time. No test reads the records of
tuning that whoever runs them has.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from gsb_tvm.tuned import VARIABLE
from tests.commandline import CommandLine
from tests.schedules.cuda import budgets

settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what kernels for GPUs take, where tests have found out."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    properties = [each for report in reports for each in report.user_properties]
    rows = [row for name, row in properties if name == budgets.PROPERTY]
    if rows:
        terminalreporter.section("registers and shared bytes of kernels for GPUs")
        for line in budgets.table(rows):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def _no_records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the user's cache be an empty folder, in this process and in those it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _all_cpus() -> Iterator[None]:
    """Leave the next file the CPUs that this one found: TVM's pools bind whoever calls them."""
    cpus = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cpus)


@pytest.fixture(scope="module")
def gsb() -> Iterator[CommandLine]:
    """The warm process that forks for each call."""
    with CommandLine() as command:
        yield command
