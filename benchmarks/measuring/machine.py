"""The machine that figures are of: its name, its cores, who may run on them."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gsb_tvm.dialect.errors import TargetError, UsageError
from gsb_tvm.targets import Profile, missing_here, resolve

_PACKAGES = ("apache-tvm", "numpy", "onnxruntime", "openvino", "nncf", "torch")


def versions() -> dict[str, str]:
    """Installed packages that take part in benchmarks."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def runnable(target: str) -> Profile:
    """Resolve a target that a CPU of this machine runs.

    Raises
    ------
    TargetError
        It does not.
    """
    profile = resolve(target)
    if profile.gpu is not None:
        raise TargetError(f"{target}: CPUs are timed here. For GPUs run python -m tests.gpu.")
    if lacks := missing_here(profile):
        raise TargetError(
            f"{target}: this machine lacks {', '.join(lacks)}, so nothing can be timed on it."
        )
    return profile


def choose_cores(threads: int, wanted: Sequence[int]) -> tuple[int, ...]:
    """Return the cores for so many threads: the first of ``wanted``, or of those there are.

    Raises
    ------
    UsageError
        There are too few, or one does not exist.
    """
    count = os.cpu_count() or 1
    known = tuple(wanted) or tuple(range(count))
    if strange := [core for core in known if core >= count]:
        raise UsageError(f"--cores: there is no core {strange[0]}, only 0 to {count - 1}.")
    if threads > len(known):
        raise UsageError(
            f"--threads: {threads} threads need as many cores, and there are {len(known)}. "
            "Ask for fewer threads, or name more with --cores."
        )
    return known[:threads]


@contextlib.contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Run this process on those cores only, for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def held(lock: Path | None) -> Iterator[None]:
    """Hold a file lock, for machines where several people time things; None holds nothing."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def preferred(priority: int) -> Iterator[None]:
    """Run all threads of this process before others (SCHED_FIFO); 0 changes nothing.

    Only while timing: a pool that spins when it has nothing to do would keep others off the core.
    """
    if not priority:
        yield
        return
    _schedule(os.SCHED_FIFO, priority)
    try:
        yield
    finally:
        _schedule(os.SCHED_OTHER, 0)


def _schedule(policy: int, priority: int) -> None:
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(task), policy, os.sched_param(priority))
