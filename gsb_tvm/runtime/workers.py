"""Threads that share the work of one call: TVM's pool, sized and placed.

TVM keeps a pool for each calling thread, takes half of the CPUs on x86 for its size, and pins
worker i to CPU i whatever the process may use, so that two processes, or a pinned caller and its
worker, end on one core. Here a pool has as many threads as are asked for, which run wherever the
process may.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.dialect.parts import MOST_PARTS
from gsb_tvm.runtime.callers import on_lasting_thread
from gsb_tvm.runtime.library import Library

# tvm/src/runtime/threading_backend.h, ThreadGroup::AffinityMode.
_SHARE_ALL_CORES = -3

_configured = threading.local()


def check_threads(threads: int) -> None:
    """Raise unless a call can be shared among ``threads`` threads here.

    Raises
    ------
    UsageError
        Fewer than one, or more than the process may use CPUs: threads that wait for each other
        would stand in each other's way.
    """
    most = min(len(os.sched_getaffinity(0)), MOST_PARTS)
    if not 1 <= threads <= most:
        raise UsageError(f"{threads} threads are asked for, expected 1 to {most} in this process.")


def share(library: Library, threads: int, call: Callable[[], None]) -> None:
    """Run ``call``, which calls ``library`` on ``threads`` threads.

    Raises
    ------
    UsageError
        The process was forked after it had used several threads: they stay with the parent. Or
        there cannot be so many.
    """
    library.start_threads_with(_launch())

    def prepared() -> None:
        _prepare(threads)
        call()

    try:
        on_lasting_thread(prepared)
    except RuntimeError as err:  # of Python's threads, or std::system_error of std::thread
        raise UsageError(
            f"{threads} threads are asked for, and the system starts no more ({err}). Raise its "
            "limit of threads or memory, or load the model with threads=1."
        ) from err


def _prepare(threads: int) -> None:
    """Make ``threads`` threads ready for this thread's next call."""
    owner = os.getpid()
    before = getattr(_configured, "owner", owner)
    if before != owner:
        raise UsageError(
            "this process was forked from one that had run a model on several threads, which do "
            'not follow. Start it by "spawn", or load the model with threads=1.'
        )
    # Asked before each call: whoever else uses TVM on this thread may have resized its pool, and
    # parts that wait for each other would wait for ever.
    if not hasattr(_configured, "owner") or _pool_size() != threads:
        _resize(threads)
        _configured.owner = owner


def _resize(threads: int) -> None:
    import tvm_ffi

    check_threads(threads)  # the thread may have been bound to fewer CPUs since loading
    cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))]
    tvm_ffi.get_global_func("runtime.config_threadpool")(_SHARE_ALL_CORES, threads, cpus)
    given = _pool_size()
    if given != threads:
        raise UsageError(
            f"{threads} threads are asked for, and the pool of this thread has {given}. "
            "Call the model from a thread that has used no other pool of TVM's."
        )


def _pool_size() -> int:
    """Threads that the calling thread's pool starts for a task; makes the pool where none is."""
    return int(_pool_size_function()())


@cache
def _pool_size_function() -> Any:
    import tvm_ffi

    return tvm_ffi.get_global_func("runtime.NumThreads")


@cache
def _launch() -> int:
    """Address of the function that runs a task on the calling thread's pool."""
    import tvm_ffi  # noqa: F401  (brings the library that the runtime is linked to)

    spec = find_spec("tvm")
    assert spec is not None
    assert spec.origin is not None
    runtime = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libtvm_runtime.so"))
    address = ctypes.cast(runtime.TVMBackendParallelLaunch, ctypes.c_void_p).value
    assert address is not None
    return address
