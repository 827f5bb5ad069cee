"""A farm on this machine: tracker and servers as a user starts them, and kernels to run there."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import tvm
from tvm.script import ir as I
from tvm.script import tirx as T
from tvm.support import cc

from gsb_tvm.tuning.farm import Address, farm
from tests.libcuda.build import environment
from tests.tuning import board

PORT = 20000 + os.getpid() % 120 * 100
"""The first of a hundred ports that are this process's."""
SIZE = 64
_START_S = 120
_READY = re.compile(r"(?:serving .*|tracking boards) on ([\d.]+):(\d+)")


class Served:
    """A process of ``gsb-tvm device``, ready; a context manager that leaves nothing of it."""

    def __init__(self, words: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._words = words
        self._environment = environment
        self._out: Any = tempfile.TemporaryFile("w+b")
        self._process: Any = None
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.send(signal.SIGCONT)
        self.end(signal.SIGKILL)
        self._out.close()

    def start(self) -> None:
        """Start, or start anew; :meth:`address` waits until it is ready."""
        self._out.seek(0)
        self._out.truncate()
        self._process = subprocess.Popen(
            self._words,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env={**(self._environment or os.environ), "PYTHONUNBUFFERED": "1"},
            cwd=board.ROOT,
        )

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def said(self) -> str:
        """All that it has printed."""
        # By a position of its own: what the process writes goes behind what it has written.
        size = os.fstat(self._out.fileno()).st_size
        return os.pread(self._out.fileno(), size, 0).decode(errors="replace")

    def address(self) -> Address:
        """Where it listens, once it does."""
        soon(lambda: _READY.search(self.said()) or self._process.poll() is not None, _START_S)
        found = _READY.search(self.said())
        assert found, self.said()
        return found[1], int(found[2])

    def family(self) -> list[psutil.Process]:
        """The process and all under it."""
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self, number: int) -> int:
        """Send a signal; its exit status, once it has ended."""
        self.send(number)
        return int(self._process.wait(20))


def track(port: int, port_end: int | None = None) -> Served:
    """A tracker."""
    last = port + 99 if port_end is None else port_end
    return _device("track", "--port", str(port), "--port-end", str(last))


def serve(tracker: Address, key: str, port: int) -> Served:
    """A board that is this machine."""
    return _device("serve", *_arguments(tracker, key, port))


def serve_arm(tracker: Address, key: str, port: int) -> Served:
    """A board that is emulated.

    Raises
    ------
    tests.tuning.board.Unavailable
        It cannot be had here.
    """
    return Served(*board.command(_arguments(tracker, key, port)))


def serve_gpu(tracker: Address, key: str, port: int, kernels: Path, **settings: object) -> Served:
    """A board with a GPU of sm_90, whose driver is the stand-in and knows ``kernels``."""
    found = environment(kernels, **settings)
    return _device("serve", *_arguments(tracker, key, port), environment=found)


def _device(*arguments: str, environment: dict[str, str] | None = None) -> Served:
    return Served([sys.executable, "-m", "gsb_tvm.device", *arguments], environment)


def _arguments(tracker: Address, key: str, port: int) -> list[str]:
    return ["--tracker", "{}:{}".format(*tracker), "--key", key, "--port", str(port)]


def soon(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.02)


def registered(tracker: Address, count: int) -> None:
    """Wait until a tracker knows so many boards, all of them free."""

    def are_there() -> bool:
        found = farm(tracker)
        return len(found.boards) == sum(queue.free for queue in found.queues) == count

    soon(are_there, 60)


@I.ir_module
class AddOne:
    @T.prim_func(s_tir=True)
    def main(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        for i in range(64):
            B[i] = A[i] + T.float32(1)


@I.ir_module
class Crash:
    @T.prim_func(s_tir=True)
    def main(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        B[0] = A[0] + T.Cast("float32", T.call_extern("int32", "raise", 11))


@I.ir_module
class Endless:
    @T.prim_func(s_tir=True)
    def main(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        while A[0] < T.float32(2):
            B[0] = A[0] + T.Cast("float32", T.call_extern("int32", "getppid"))


@I.ir_module
class Nap:
    @T.prim_func(s_tir=True)
    def main(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        for i in range(64):
            B[i] = A[i] + T.Cast("float32", T.call_extern("int32", "usleep", 5000))


X86 = {"kind": "llvm", "mtriple": "x86_64-linux-gnu"}
ARM = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": board.CPU}


def library(module: Any, target: dict[str, str], path: Path) -> Path:
    """A module's function "main" as a shared library."""
    linker = cc.cross_compiler("aarch64-linux-gnu-g++") if target is ARM else cc.create_shared
    made = tvm.compile(module, target=tvm.target.Target(target))
    made.export_library(str(path), fcompile=linker)
    return path


@contextlib.contextmanager
def no_process_left(*served: Served) -> Iterator[None]:
    """All processes of these servers end, soon after the block at the latest."""
    family = [process for each in served for process in each.family()]
    yield
    soon(lambda: not any(process.is_running() and not _is_dead(process) for process in family))


def _is_dead(process: psutil.Process) -> bool:
    """Whether only its exit status is left, for somebody to read."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
