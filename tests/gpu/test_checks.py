"""Checks of a kernel: they pass where it is right, and say what is wrong where it is not."""

from dataclasses import replace

import numpy as np
import pytest

from gsb_tvm.runtime.cuda.driver import CopyNode
from gsb_tvm.runtime.metadata import Place
from tests.gpu.checks import GUARD, Placed, complaint
from tests.gpu.drawing import samples, samples_of
from tests.gpu.kernel_checks import checking
from tests.gpu.rows import Row


@pytest.fixture(scope="module")
def drawn(folder, case):
    return samples_of(folder, case, samples)


@pytest.fixture
def functions(gpu, case):
    module = gpu.load(b"")
    return {name: gpu.function(module, name) for name in case.functions}


def test_a_right_kernel(folder, case, gpu):
    check = checking(folder, {case.name: case}, gpu, samples)
    assert list(check(case.name)) == [Row(case.name, "ok")]
    assert gpu.loaded[0][:4] == b"\x7fELF"
    assert not gpu.memory, "memory was not given back"


def test_a_watched_kernel_is_told_by_its_results_alone(case, gpu, functions, drawn):
    assert complaint(gpu, case, functions, drawn[:1], watched=True) == ""
    wrong = [replace(drawn[0], outputs=[~drawn[0].outputs[0], *drawn[0].outputs[1:]])]
    found = complaint(gpu, case, functions, wrong, watched=True)
    assert found.startswith("sample 0, run 0: wrong result")


def test_a_wrong_result(case, gpu, functions, drawn):
    outputs = [array.copy() for array in drawn[1].outputs]
    outputs[0].reshape(-1)[0] ^= 4
    found = complaint(gpu, case, functions, [drawn[0], replace(drawn[1], outputs=outputs)])
    assert found == "sample 1, run 0: wrong result: 1 bits of output 0"


class Spoiling:
    """A GPU that copies a byte of garbage somewhere behind each launch."""

    def __init__(self, gpu, place):
        self._gpu, self._place = gpu, place

    def __getattr__(self, name):
        return getattr(self._gpu, name)

    def run(self, node, stream):
        self._gpu.run(node, stream)
        target = self._place(node)
        if target is not None:
            self._gpu.run(CopyNode(target, self._gpu.garbage, 1), stream)


@pytest.mark.parametrize(
    ("argument", "offset", "complaint_of"),
    [
        (Place("input", 0), -1, "written beside a tensor"),
        (Place("input", 0), 0, "input 0 was changed"),
        (Place("input", 2), -1, "written beside a tensor"),
        (Place("memory", 0), -1, "written beside a tensor"),
        (Place("memory", 1024), 0, "something was left in what must be zero"),
    ],
)
def test_what_is_not_the_kernels(case, gpu, functions, drawn, argument, offset, complaint_of):
    garbage = np.full(1, 0x99, np.uint8)
    gpu.garbage = garbage.ctypes.data
    launch = next(each for each in reversed(case.launches) if argument in each.arguments)
    at = launch.arguments.index(argument)

    def place(node):
        return node.pointers[at] + offset if node.function[1] == launch.function else None

    spoiling = Spoiling(gpu, place)
    try:
        found = complaint(spoiling, case, functions, drawn[:1])
    except AssertionError as err:
        found = str(err)
    assert complaint_of in found


def test_guards_lie_on_both_sides(gpu):
    placed = Placed(gpu, 5, GUARD)
    placed.write(np.arange(5, dtype=np.uint8))
    assert placed.read().tolist() == [0, 1, 2, 3, 4]
    for offset in (-GUARD, -1, 5, 4 + GUARD):
        byte = np.zeros(1, np.uint8)
        gpu.upload(placed.pointer + offset, byte, 0)
        with pytest.raises(AssertionError, match="beside"):
            placed.read()
        placed.write(np.zeros(5, np.uint8))
