"""Threads that make calls for others."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gsb_tvm.runtime.callers import on_lasting_thread


def caller() -> int:
    """Number of the thread that runs a task of this one."""
    found: list[int] = []
    on_lasting_thread(lambda: found.append(threading.get_native_id()))
    return found[0]


def callers(count: int) -> list[int]:
    """Those of as many threads, one after another."""
    found = []
    for _ in range(count):
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(caller).result(timeout=60))
    return found


def test_the_main_thread_runs_its_own() -> None:
    assert caller() == threading.get_native_id()


def test_others_share_one_that_stays() -> None:
    first, *rest = callers(3)
    assert first != threading.get_native_id()
    assert set(rest) == {first}


def test_as_many_as_tasks_at_once() -> None:
    meet = threading.Barrier(3, timeout=60)
    with ThreadPoolExecutor(3) as pool:
        for task in [pool.submit(on_lasting_thread, meet.wait) for _ in range(3)]:
            task.result()


def test_errors_arrive_and_the_thread_stays() -> None:
    def wrong() -> None:
        raise KeyError("here")

    (first,) = callers(1)
    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyError, match="here"):
        pool.submit(on_lasting_thread, wrong).result(timeout=60)
    assert callers(1) == [first]


def test_a_forked_process_starts_its_own() -> None:
    callers(1)
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        threading.Thread(target=lambda: os._exit(0 if caller() else 1)).start()
        threading.Event().wait(60)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_cpus_are_those_of_the_thread_that_asks() -> None:
    cpu = min(os.sched_getaffinity(0))
    found: list[set[int]] = []

    def bound() -> None:
        os.sched_setaffinity(0, {cpu})
        on_lasting_thread(lambda: found.append(os.sched_getaffinity(0)))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(bound).result(timeout=60)
        callers(1)
    assert found == [{cpu}]
