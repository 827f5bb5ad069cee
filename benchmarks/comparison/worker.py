"""The process of one engine: ``python -m comparison.worker ACTION``, the job on standard input.

ACTION is "prepare", "verify", "load" or "start", which loads as well, for the time it takes. Each
answer is one line of JSON on what was standard output when the process began; what an engine prints
goes to standard error. After "load" it takes orders, one a line, until its input ends.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from comparison.engines import engine
from comparison.jobs import Failed, Job, Loaded, Prepared, Timed, Turn
from measuring.machine import preferred
from measuring.samples import timed


def peak_mb() -> float:
    """Largest memory this process has had, in 10**6 bytes.

    Not ``ru_maxrss``: a process inherits that from the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def prepare(job: Job) -> Prepared:
    """Convert, quantise or compile."""
    each = engine(job.engine)
    code = each.code()
    start = time.perf_counter()
    files = code.prepare(job, each.precision)
    seconds = time.perf_counter() - start
    return Prepared(tuple(str(file) for file in files), seconds, peak_mb())


def serve(job: Job, answer: Callable[[Any], None]) -> None:
    """Load, give the first result, then time runs whenever asked."""
    os.sched_setaffinity(0, job.cores)
    each = engine(job.engine)
    images = np.load(job.images)
    run = each.code().load(job, each.precision)
    output = job.beside(f".{job.engine}-{job.isa}-{job.threads}.npy")
    first = run(images)
    # Told before the file is written: the parent takes the time.
    answer(Loaded(str(output), peak_mb(), getattr(run, "note", "")))
    np.save(output, first)
    for line in sys.stdin.buffer:
        turn = msgspec.json.decode(line, type=Turn)
        with preferred(job.priority):
            for _ in range(turn.warm_up):
                run(images)
            every, quiet = timed(lambda: run(images), turn.seconds, turn.most)
        answer(Timed(tuple(every), tuple(quiet), peak_mb()))


def main() -> int:
    """Do what is asked; an engine's failure is an answer, because the table has a row for it."""
    channel = _own_channel()

    def answer(value: Any) -> None:
        message = {"kind": type(value).__name__, "value": value}
        channel.write(msgspec.json.encode(message) + b"\n")
        channel.flush()

    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    try:
        if sys.argv[1] == "load":
            serve(job, answer)
        elif sys.argv[1] == "start":
            with preferred(job.priority):
                serve(job, answer)
        elif sys.argv[1] == "verify":
            answer(engine(job.engine).code().verify(job))
        else:
            answer(prepare(job))
    except Exception as err:  # whatever an opponent raises is its row's remark
        answer(Failed(reason_of(err)))
        return 1
    return 0


def reason_of(err: Exception) -> str:
    """One line of an exception's text: its first and, of several, its last, where causes stand."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return " … ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))[:300] or type(err).__name__


def _own_channel() -> IO[bytes]:
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return channel


if __name__ == "__main__":
    sys.exit(main())
