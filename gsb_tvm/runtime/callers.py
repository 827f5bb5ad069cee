"""Threads that stay and make calls for those that come and go.

TVM keeps a pool for each thread that ever started one, to the end of the process. A program that
answers each request on a thread of its own would be left with the pools of all of them; so only
the main thread has a pool, and these have, of which there are as many as calls at once.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Callable
from queue import SimpleQueue

# By what a thread inherits from the one that starts it: the process, which fork makes another, and
# the CPUs.
_idle: dict[tuple[int, frozenset[int]], list["_Caller"]] = defaultdict(list)


def on_lasting_thread(task: Callable[[], None]) -> None:
    """Run ``task`` on the main thread where this is it, else on one that stays.

    Raises
    ------
    RuntimeError
        The system starts no more threads.
    """
    if threading.current_thread() is threading.main_thread():
        task()
        return
    idle = _idle[os.getpid(), frozenset(os.sched_getaffinity(0))]
    try:
        caller = idle.pop()
    except IndexError:
        caller = _Caller()
    error = caller.run(task)
    idle.append(caller)  # not where the wait for it ended early: it may still be at work
    if error is not None:
        raise error


class _Caller:
    """A thread that runs one task at a time; nobody waits for it when the interpreter ends."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._errors: SimpleQueue[BaseException | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="gsb_tvm", daemon=True).start()

    def run(self, task: Callable[[], None]) -> BaseException | None:
        """Have ``task`` run and return what it raised."""
        self._tasks.put(task)
        return self._errors.get()

    def _serve(self) -> None:
        while True:
            self._errors.put(_outcome(self._tasks.get()))


def _outcome(task: Callable[[], None]) -> BaseException | None:
    """What ``task`` raises; keeps nothing of it alive."""
    try:
        task()
    except BaseException as err:  # the thread that waits raises it
        return err
    return None
