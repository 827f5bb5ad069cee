import numpy as np
import pytest
import tvm
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.sharing import MOST_PARTS, is_phase, phase, statements, with_parts

COUNT = 20


def reversed_through_scratch() -> tvm.tirx.PrimFunc:
    """y = 2 x backwards, by way of a buffer that all parts of the first phase fill."""

    def body(x: v.Buffer, y: v.Buffer) -> None:
        doubled = v.workspace((COUNT,), "float32")
        with phase() as share:
            first, end = share.span(COUNT)
            with T.serial(first, end) as i:
                v.put(doubled, x[i] * T.float32(2), i)
        with phase() as share:
            first, end = share.span(COUNT)
            with T.serial(first, end) as i:
                v.put(y, doubled[COUNT - 1 - i], i)

    return v.prim_func([("x", (COUNT,), "float32"), ("y", (COUNT,), "float32")], body)


def run(func: tvm.tirx.PrimFunc) -> np.ndarray:
    library = tvm.compile(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}), "llvm")
    x = tvm.runtime.tensor(np.arange(COUNT, dtype="float32"))
    y = tvm.runtime.tensor(np.full(COUNT, -1, "float32"))
    library["main"](x, y)
    return y.numpy()


@pytest.mark.parametrize("parts", [1, 2, 3, 7, COUNT, MOST_PARTS])
def test_any_number_of_parts_does_the_whole_work(parts: int) -> None:
    expected = 2 * np.arange(COUNT, dtype="float32")[::-1]
    np.testing.assert_array_equal(run(with_parts(reversed_through_scratch(), parts)), expected)


def test_a_kernel_as_written_is_one_part() -> None:
    func = reversed_through_scratch()
    assert sum(map(is_phase, statements(func))) == 2
    tvm.ir.assert_structural_equal(func, with_parts(func, 1))
