"""The entry function: the whole model in any number of parts, with phases kept apart."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from tvm import relax
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.dialect.parts import MOST_PARTS
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime import workers
from gsb_tvm.runtime.build import build, generate
from gsb_tvm.runtime.callers import on_lasting_thread
from gsb_tvm.runtime.session import Module, load
from gsb_tvm.runtime.workers import check_threads
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.sharing import phase
from gsb_tvm.targets.profile import Profile

SIZE = 1000
ROUNDS = 20
CPUS = len(os.sched_getaffinity(0))

needs_two = pytest.mark.skipif(CPUS < 2, reason="this process may use one CPU only")


def turned(x: v.Buffer, y: v.Buffer) -> None:
    """y = x backwards, plus 1, through scratch of all parts and scratch of each."""
    shared = v.workspace((SIZE,), "float32")
    with phase() as share:
        own = v.workspace((SIZE,), "float32")
        first, end = share.span(SIZE)
        with T.serial(first, end) as i:
            v.put(own, x[i] + T.float32(1), i)
        with T.serial(first, end) as i:
            v.put(shared, own[i], i)
    with phase() as share:
        first, end = share.span(SIZE)
        with T.serial(first, end) as i:
            v.put(y, shared[SIZE - 1 - i], i)


def module_of_rounds() -> relax.Function:
    """``turned`` many times, and between them an operator of which only TVM knows a kernel."""
    tensors = [("x", (SIZE,), "float32"), ("y", (SIZE,), "float32")]
    x = relax.Var("x", relax.TensorType((SIZE,), "float32"))
    builder = relax.BlockBuilder()
    kernel = v.prim_func(tensors, turned).without_attr("global_symbol")
    with builder.function("main", [x]):
        with builder.dataflow():
            call, y = builder.add_func(kernel, "turned"), x
            for _ in range(ROUNDS):
                y = builder.emit(relax.call_tir(call, [y], x.ty))
                y = builder.emit(relax.op.abs(y))
            y = builder.emit_output(y)
        builder.emit_func_output(y)
    return builder.get()


@pytest.fixture(scope="module")
def path(native: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensor = meta.Tensor("x", (SIZE,), "float32")
    metadata = meta.Metadata(
        versions=meta.versions(),
        target=meta.target_of(native),
        model=meta.Model("rounds", ""),
        inputs=(tensor,),
        outputs=(tensor,),
    )
    out = tmp_path_factory.mktemp("rounds") / "rounds.so"
    return build(module_of_rounds(), native, out, metadata).path


def x_and_y() -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(SIZE, dtype=np.float32)
    return x, x + ROUNDS  # turned an even number of times


def test_one_thread(path: Path) -> None:
    x, y = x_and_y()
    np.testing.assert_array_equal(load(path)(x), y)


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


def test_memory_says_what_parts_take(native: Profile) -> None:
    memory = generate(module_of_rounds(), native).memory
    assert memory.part_bytes >= 4 * SIZE
    # Two tensors that change places, scratch of all parts, and a cache line for each part.
    assert memory.fixed_bytes >= 3 * 4 * SIZE + 64 * MOST_PARTS
    assert memory.total(2) - memory.total(1) == memory.part_bytes


def test_scratch_of_parts_beyond_two_gigabytes(native: Profile) -> None:
    size = 20_000_000  # 80 MB a part: that of part 27 begins behind byte 2**31

    def copied(x: v.Buffer, y: v.Buffer) -> None:
        with phase() as share:
            own = v.workspace((size,), "float32")
            first, end = share.span(size)
            with T.serial(first, end) as i:
                v.put(own, x[i], i)
            with T.serial(first, end) as i:
                v.put(y, own[size - 1 - i], i)

    x = relax.Var("x", relax.TensorType((size,), "float32"))
    kernel = v.prim_func([("x", (size,), "float32"), ("y", (size,), "float32")], copied)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            call, y = builder.add_func(kernel.without_attr("global_symbol"), "copied"), x
            for _ in range(3):  # called once it would become a part of its caller
                y = builder.emit(relax.call_tir(call, [y], x.ty))
            y = builder.emit_output(y)
        builder.emit_func_output(y)
    code = generate(builder.get(), native)
    assert code.memory.part_bytes == 4 * size
    multiplied = re.findall(rf"mul \D*(i\d+) %\w+, {4 * size}\b", code.llvm_ir())
    assert set(multiplied) == {"i64"}


def test_steps_are_named_by_their_results(path: Path) -> None:
    module: Module = load(path)
    kernels = [step.kernel for step in module.metadata.steps]
    assert kernels == ["turned", "tir_abs"] * ROUNDS
