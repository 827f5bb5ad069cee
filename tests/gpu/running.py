"""Stages in processes of their own: what ends one, or hangs in it, ends no other.

Behind an error of the GPU a process can do nothing more with it, so whatever is left of a stage
goes on in a new one.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.gpu import rows
from tests.gpu.rows import Begun, Ended, Found, Row, StageResult
from tests.gpu.stages import BY_NAME, Check, Stage

ROOT = Path(__file__).resolve().parents[2]
_OPENING = "opening"
_STICKY = 3  # exit code of a process that the GPU does not obey any longer
_POLL_S = 0.05
_LOG = 600  # characters of what a process said last


def run_stage(folder: Path, stage: Stage, seconds: float) -> StageResult:
    """All units of a stage, in as many processes as it takes, for so long at most."""
    start = time.monotonic()
    found: list[Row] = []
    left = list(stage.load().units(folder))
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(len(left)):
            remaining = seconds - (time.monotonic() - start)
            if not left or remaining <= 0:
                break
            path = Path(scratch) / f"{number}.jsonl"
            rows.append(path, Begun(_OPENING))
            ended = _run(folder, stage, left, path, remaining)
            more, cut = rows.read(path)
            found += more
            if cut:
                found.append(Row(cut, "failed", ended))
            if cut == _OPENING:
                break  # the next process would fare no better
            left = [unit for unit in left if unit not in rows.begun(path)]
    found += [Row(unit, "skipped", "no time was left") for unit in left]
    return StageResult(stage.name, time.monotonic() - start, tuple(found))


def _run(folder: Path, stage: Stage, units: Sequence[str], path: Path, seconds: float) -> str:
    """One process of a stage; how it ended, "" where it did what there was to do."""
    command = [sys.executable, "-m", "tests.gpu", str(folder), "--stage", stage.name]
    command += ["--rows", str(path)]
    end = time.monotonic() + seconds
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
        assert process.stdin is not None
        process.stdin.write("\n".join(units).encode())
        process.stdin.close()
        late = _late(process, path, end, stage.unit_s)
        # All that it started: what draws samples or watches kernels, too.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        if code == 0:
            return ""
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip()[-_LOG:]
    return f"{late or f'ended with {code}'}. {said}".strip()


def _late(process: "subprocess.Popen[bytes]", path: Path, end: float, unit_s: float) -> str:
    """Wait for a process; why it has to be ended, or ""."""
    while process.poll() is None:
        quiet = time.time() - path.stat().st_mtime
        if time.monotonic() > end:
            return "the time of the stage is over"
        if quiet > unit_s:
            return f"took more than {unit_s:.0f} s"
        time.sleep(_POLL_S)
    return ""


def be_stage(folder: Path, name: str, units: Sequence[str], path: Path) -> int:
    """Be the process of a stage: do units one after another; return the exit code."""
    check = BY_NAME[name].load().opened(folder, units)
    rows.append(path, Ended(_OPENING))
    for unit in units:
        rows.append(path, Begun(unit))
        is_lost = False
        for row, is_sticky in _findings(check, unit):
            rows.append(path, Found(row))
            is_lost |= is_sticky
        rows.append(path, Ended(unit))
        if is_lost:
            return _STICKY
    return 0


def _findings(check: Check, unit: str) -> Iterator[tuple[Row, bool]]:
    """Rows of a unit, and whether the GPU is lost with one."""
    try:
        for row in check(unit):
            yield row, False
    except Exception as err:
        text = "".join(traceback.format_exception_only(err)).strip()
        where = traceback.extract_tb(err.__traceback__)[-1]
        told = f"{text} ({Path(where.filename).name}:{where.lineno})"
        # Errors of PyTorch and CuPy are RuntimeErrors, too; to begin anew too often is no harm.
        yield Row(unit, "failed", told), isinstance(err, RuntimeError)
