"""Calls on several threads, and who may make them."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.dialect.parts import MOST_PARTS
from gsb_tvm.runtime import workers
from gsb_tvm.runtime.callers import on_lasting_thread
from gsb_tvm.runtime.session import load
from gsb_tvm.runtime.workers import check_threads
from gsb_tvm.targets.profile import Profile
from tests.runtime.rounds import SIZE, written, x_and_y

CPUS = len(os.sched_getaffinity(0))

needs_two = pytest.mark.skipif(CPUS < 2, reason="this process may use one CPU only")


@pytest.fixture(scope="module")
def path(native: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(native, tmp_path_factory.mktemp("rounds"))


@needs_two
def test_two_threads(path: Path) -> None:
    x, y = x_and_y()
    module = load(path, threads=2)
    for _ in range(50):
        np.testing.assert_array_equal(module(x), y)


@needs_two
def test_modules_of_other_thread_counts_take_turns(path: Path) -> None:
    x, y = x_and_y()
    modules = [load(path, threads=threads) for threads in (2, 1, 2)]
    for module in modules * 3:
        np.testing.assert_array_equal(module(x), y)


@needs_two
def test_callers_on_several_threads_with_two_each(path: Path) -> None:
    x, y = x_and_y()
    module, wrong = load(path, threads=2), []

    def call() -> None:
        for _ in range(5):
            if not np.array_equal(module(x), y):
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@needs_two
def test_callers_that_come_and_go_leave_no_threads(path: Path) -> None:
    x, y = x_and_y()
    module = load(path, threads=2)
    seen = []
    for _ in range(10):
        np.testing.assert_array_equal(in_thread(lambda: module(x)), y)
        seen.append(len(os.listdir("/proc/self/task")))
    assert max(seen) - min(seen) < 5  # the caller itself may still be about to end


@needs_two
def test_a_forked_process_is_told(path: Path) -> None:
    x, _ = x_and_y()
    module = load(path, threads=2)
    module(x)
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            module(x)
        except UsageError as err:
            os._exit(0 if "forked" in str(err) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def in_thread(task: Callable[[], object]) -> object:
    """What ``task`` returns or raises on a thread of its own, which may be bound to CPUs."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(task).result(timeout=60)


@needs_two
def test_a_pool_that_somebody_else_made_smaller(path: Path) -> None:
    x, y = x_and_y()
    module = load(path, threads=2)
    cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))]

    def make_smaller() -> None:
        tvm_ffi.get_global_func("runtime.config_threadpool")(-3, 1, cpus)
        assert tvm_ffi.get_global_func("runtime.NumThreads")() == 1

    def task() -> np.ndarray:
        module(x)
        on_lasting_thread(make_smaller)
        return module(x)

    np.testing.assert_array_equal(in_thread(task), y)


@needs_two
def test_a_thread_bound_to_one_cpu_after_loading(path: Path) -> None:
    x, _ = x_and_y()
    module = load(path, threads=2)

    def task() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        module(x)

    with pytest.raises(UsageError, match=r"^2 threads are asked for, expected 1 to 1 in"):
        in_thread(task)


@needs_two
def test_threads_that_the_system_does_not_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = x_and_y()
    module = load(path, threads=2)

    def refused() -> int:
        raise RuntimeError("Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(workers, "_pool_size", refused)
        with pytest.raises(UsageError) as caught:
            in_thread(lambda: module(x))
    assert str(caught.value) == (
        "2 threads are asked for, and the system starts no more (Resource temporarily "
        "unavailable). Raise its limit of threads or memory, or load the model with threads=1."
    )
    np.testing.assert_array_equal(in_thread(lambda: module(x)), y)


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=needs_two)])
def test_the_interpreter_ends_while_threads_call(path: Path, threads: int) -> None:
    script = f"""
import threading, time
import numpy as np
import gsb_tvm
module = gsb_tvm.load({str(path)!r}, threads={threads})
x = np.zeros({SIZE}, np.float32)
def call():
    while True:
        module(x)
for _ in range(3):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.3)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("threads", [0, -1, CPUS + 1, MOST_PARTS + 1])
def test_a_number_of_threads_that_cannot_be(path: Path, threads: int) -> None:
    most = min(CPUS, MOST_PARTS)
    with pytest.raises(UsageError) as caught:
        load(path, threads=threads)
    assert str(caught.value) == (
        f"{threads} threads are asked for, expected 1 to {most} in this process."
    )
    check_threads(most)
