"""Small kernels under NVIDIA's compute-sanitizer: bounds, races, memory never written, barriers."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.gpu import rows
from tests.gpu.rows import Row
from tests.gpu.stages import WATCHED, Check
from tests.gpu.watched_checks import units as watched_units

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
_ALL = "all tools"
_FOUND = 9  # exit code that the tool gives for an error of its own
_LIMIT_S = 80


def units(_folder: Path) -> list[str]:
    """One: the tools run beside each other."""
    return [_ALL]


def opened(folder: Path, _wanted: Sequence[str]) -> Check:
    """Nothing is opened here: each tool starts a process that opens the GPU."""
    return lambda _unit: checked(folder, shutil.which("compute-sanitizer"))


def checked(folder: Path, program: str | None) -> Iterator[Row]:
    """All tools at once, and what each found."""
    if program is None:
        yield Row(_ALL, "skipped", "compute-sanitizer is not installed")
        return
    with tempfile.TemporaryDirectory() as scratch:
        started = [(tool, _start(program, tool, folder, Path(scratch))) for tool in TOOLS]
        end = time.monotonic() + _LIMIT_S
        for tool, process in started:
            yield _ended(tool, process, Path(scratch), end)


def _start(program: str, tool: str, folder: Path, scratch: Path) -> "subprocess.Popen[bytes]":
    path = _rows(scratch, tool)
    path.touch()
    command = [program, "--tool", tool, f"--error-exitcode={_FOUND}", "--target-processes=all"]
    command += [sys.executable, "-m", "tests.gpu", str(folder), "--stage", WATCHED.name]
    process = subprocess.Popen(
        [*command, "--rows", str(path)],
        stdin=subprocess.PIPE,
        stdout=_log(scratch, tool).open("wb"),
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    process.stdin.write("\n".join(watched_units(folder)).encode())
    process.stdin.close()
    return process


def _rows(scratch: Path, tool: str) -> Path:
    return scratch / f"{tool}.jsonl"


def _log(scratch: Path, tool: str) -> Path:
    return scratch / f"{tool}.log"


def _ended(tool: str, process: "subprocess.Popen[bytes]", scratch: Path, end: float) -> Row:
    late = False
    try:
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        late = True
        process.kill()
        process.wait()
    found, _ = rows.read(_rows(scratch, tool))
    log = _log(scratch, tool).read_text("utf-8", "replace")
    return judged(tool, process.returncode, found, log, late=late)


def judged(tool: str, code: int, found: Sequence[Row], log: str, *, late: bool = False) -> Row:
    """What came of a tool: of kernels that it saw, of those that failed, of its exit code."""
    wrong = [row.name for row in found if row.verdict == "failed"]
    seen = {"kernels": len(found)}
    said = " | ".join(line for line in log.splitlines() if line.startswith("========="))
    if "Device not supported" in log:
        return Row(tool, "skipped", "the tool does not support this device", seen)
    if code == _FOUND and tool == "initcheck" and "__global__" not in log:
        return Row(tool, "ok", f"only copies of what need not be written: {said[:300]}", seen)
    if code == _FOUND:
        return Row(tool, "failed", said[:2000], seen)
    if wrong:
        return Row(tool, "failed", f"wrong results: {', '.join(wrong)}", seen)
    if late:
        verdict = "ok" if found else "skipped"
        return Row(tool, verdict, "nothing found until its time was over", seen)
    if code or not found:
        return Row(tool, "failed", f"ended with {code}: {log[-600:]}", seen)
    return Row(tool, "ok", "nothing found", seen)
