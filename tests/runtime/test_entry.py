"""The entry function: the whole model in any number of parts, with phases kept apart."""

import ctypes
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from tvm import relax
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.parts import MOST_PARTS
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.arrays import address, zeros
from gsb_tvm.runtime.build import generate
from gsb_tvm.runtime.library import Library
from gsb_tvm.runtime.session import Module, load
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.sharing import phase
from gsb_tvm.targets.profile import Profile
from tests.runtime.conftest import Case
from tests.runtime.rounds import ROUNDS, SIZE, module_of_rounds, written, x_and_y


@pytest.fixture(scope="module")
def path(native: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(native, tmp_path_factory.mktemp("rounds"))


def test_one_thread(path: Path) -> None:
    x, y = x_and_y()
    np.testing.assert_array_equal(load(path)(x), y)


class Group(ctypes.Structure):
    """TVMParallelGroupEnv of tvm/runtime/c_backend_api.h."""

    _fields_ = (("sync_handle", ctypes.c_void_p), ("num_task", ctypes.c_int32))


TASK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(Group), ctypes.c_void_p)
LAUNCH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


@pytest.mark.parametrize("parts", [2, 3, 7, MOST_PARTS])
def test_more_parts_than_cpus(path: Path, parts: int) -> None:
    @LAUNCH
    def launch(task: int, data: int, _count: int) -> int:
        group = Group(None, parts)
        arguments = [(part, ctypes.byref(group), data) for part in range(parts)]
        threads = [threading.Thread(target=TASK(task), args=each) for each in arguments]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 0

    x, expected = x_and_y()
    memory = zeros(meta.read(path).program.memory.total(parts))
    memory[:] = 0xFF  # nothing may be taken for zero
    header = meta.header(meta.contents(path), str(path))
    library, y = Library(path, [meta.NAME], header), np.zeros_like(x)
    library.start_threads_with(ctypes.cast(launch, ctypes.c_void_p).value)
    tensors = [address(x), address(y)]
    library.run(meta.NAME, tensors, memory=address(memory), ticks=0, threads=parts, timed=False)
    np.testing.assert_array_equal(y, expected)


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
    multiplied = re.findall(rf"mul \D*(i\d+) %\w+, {4 * size}\b", code.texts["model.ll"]())
    assert set(multiplied) == {"i64"}


def test_steps_are_named_by_their_results(path: Path) -> None:
    module: Module = load(path)
    kernels = [step.kernel for step in module.metadata.program.steps]
    assert kernels == ["turned", "tir_abs"] * ROUNDS


def test_the_clock_of_arm_is_read(popcount: Case, a72: Profile) -> None:
    kernels = generate(popcount.module, a72).kernels
    words = np.frombuffer(kernels[: len(kernels) // 4 * 4], "<u4")
    reads = words & ~np.uint32(31) == 0xD53BE040  # mrs x, cntvct_el0: Arm ARM, C6.2, MRS
    assert reads.any()
