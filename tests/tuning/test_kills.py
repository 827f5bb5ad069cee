"""A tuning job that is killed loses what was in flight, and leaves no process behind."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gsb_tvm.schedules.records import load
from gsb_tvm.schedules.standings import standings

COMMAND = [sys.executable, "-m", "gsb_tvm.tune", "--trials", "100000"]
_PATIENCE = 120.0


def started(path: Path) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "--records", str(path)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def count(path: Path) -> int:
    return len(load(path).records) if path.exists() else 0


def wait_for(condition: object, what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.05)


def relatives(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def stop(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal, and see that all that the job started ends."""
    family = relatives(process)
    process.send_signal(number)
    process.wait(_PATIENCE)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


@pytest.mark.parametrize(
    "kills", [1, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_kills_lose_the_trial_in_flight_at_most(kills: int, tmp_path: Path) -> None:
    path, draw = tmp_path / "records", random.Random(kills)
    for _ in range(kills):
        before = count(path)
        lines = path.read_bytes() if before else b""
        process = started(path)
        wait_for(lambda n=before: count(path) > n + 1, "no trial was recorded")
        time.sleep(draw.uniform(0, 4))
        stop(process, signal.SIGKILL)
        assert path.read_bytes().startswith(lines)
    found = load(path)
    assert found.faults.total() <= kills  # a line that was being written
    for number, record in enumerate(found.records):
        before = [r for r in found.records[:number] if r.key == record.key]
        known = [each for each in standings(before) if each.record.choice == record.choice]
        # What failed or is proven is not tried again; what is neither has yet to prove itself.
        assert not any(each.is_proven or each.record.failure for each in known)


def test_ctrl_c_says_so_and_keeps_all(tmp_path: Path) -> None:
    path = tmp_path / "records"
    process = started(path)
    wait_for(lambda: count(path) > 1, "no trial was recorded")
    stop(process, signal.SIGINT)
    assert process.returncode == 130
    assert load(path).faults.total() == 0
