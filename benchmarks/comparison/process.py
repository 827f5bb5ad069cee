"""Starting and asking the process of an engine."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from comparison import isa
from comparison.jobs import Failed, Job, Loaded, Prepared, Timed, Turn, Verified

_ANSWERS = {each.__name__: each for each in (Failed, Loaded, Prepared, Timed, Verified)}
_BENCHMARKS = Path(__file__).resolve().parent.parent


def environment(job: Job) -> dict[str, str]:
    """Environment of an engine's process: threads, instruction set, where its modules are."""
    count = str(job.threads)
    path = [str(_BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **isa.settings(job.isa),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS"), count),
        "TORCHINDUCTOR_CACHE_DIR": str(Path(job.work) / f"inductor-{job.isa}"),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }


class Process:
    """A process that does one job; a context manager, which ends it.

    What the engine prints is kept in the work folder as ``<engine>.log``.
    """

    def __init__(self, job: Job, action: str) -> None:
        self.started = time.perf_counter()
        with (Path(job.work) / f"{job.engine}.log").open("ab") as log:
            self._process: Any = subprocess.Popen(
                [sys.executable, "-m", "comparison.worker", action],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(job),
            )
        self._send(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let it end, and wait for that."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def answer(self) -> Any:
        """Next answer: one of ``_ANSWERS``."""
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            return Failed(f"its process ended with code {code}")
        message = msgspec.json.decode(line)
        return msgspec.convert(message["value"], _ANSWERS[message["kind"]])

    def time(self, turn: Turn) -> Any:
        """Let it time runs."""
        self._send(turn)
        return self.answer()

    def _send(self, value: Any) -> None:
        try:
            self._process.stdin.write(msgspec.json.encode(value) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it has ended; the next answer says so


def ask(job: Job, action: str) -> Any:
    """Answer of a process that does one thing."""
    with Process(job, action) as process:
        return process.answer()


def cold_start(job: Job) -> float | None:
    """Seconds from the start of a process to its first result, None where there is none."""
    with Process(job, "start") as process:
        answer = process.answer()
        return time.perf_counter() - process.started if isinstance(answer, Loaded) else None
