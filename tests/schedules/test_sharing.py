"""Phases cut into any number of parts do the whole work, and every kernel is made of phases."""

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.families import kernel
from gsb_tvm.schedules.sharing import MOST_PARTS, Share, is_phase, phase, statements, with_parts
from gsb_tvm.schedules.slots import Flag, Slots
from tests.schedules import campaign
from tests.schedules.cuts import Cut
from tests.schedules.levels import LEVELS, profile_of

COUNT = 20


def reversed_through_scratch() -> tirx.PrimFunc:
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


def run(func: tirx.PrimFunc, *more: Any) -> np.ndarray:
    """y for x = 0, 1, 2 and so on."""
    library = tvm.compile(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}), "llvm")
    x = tvm.runtime.tensor(np.arange(COUNT, dtype="float32"))
    y = tvm.runtime.tensor(np.full(COUNT, -1, "float32"))
    library["main"](x, y, *more)
    return y.numpy()


def count_of(x: v.Buffer, share: Share, value: int) -> v.Expr:
    """How many of this part's elements are ``value``."""
    found = v.local((1,), "uint32")
    v.put(found, tirx.const(0, "uint32"), 0)
    first, end = share.span(COUNT)
    with T.serial(first, end) as i:
        v.put(found, found[0] + T.Cast("uint32", x[i] == T.float32(value)), 0)
    return found[0]


def flag_and_sum(value: int) -> tirx.PrimFunc:
    """y[i] = number of elements that are ``value``; the flag says whether there is any."""

    def body(x: v.Buffer, y: v.Buffer, flag: v.Buffer) -> None:
        found, total = Flag(flag), Slots("uint32")
        with phase() as share:
            count = count_of(x, share, value)
            found.put(share, count)
            total.put(share, count)
        with phase() as share:
            sum_of_all = total.combined(share, v.add)
            first, end = share.span(COUNT)
            with T.serial(first, end) as i:
                v.put(y, T.Cast("float32", sum_of_all), i)
        found.write()

    vector = (COUNT,), "float32"
    return v.prim_func([("x", *vector), ("y", *vector), ("flag", (1,), "int32")], body)


@pytest.mark.parametrize("parts", [1, 2, 7, MOST_PARTS])
@pytest.mark.parametrize("value", [0, COUNT // 2, COUNT - 1, COUNT])
def test_slots_hold_what_every_part_found(parts: int, value: int) -> None:
    """One element of one part, wherever it is, reaches the flag and the sum of all."""
    flag = tvm.runtime.tensor(np.full(1, -1, "int32"))
    y = run(Cut(parts)(flag_and_sum(value)), flag)
    np.testing.assert_array_equal(y, float(value < COUNT))
    assert flag.numpy()[0] == (value < COUNT)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, COUNT, MOST_PARTS])
@pytest.mark.parametrize("backwards", [False, True])
def test_any_number_of_parts_does_the_whole_work(parts: int, backwards: bool) -> None:
    expected = 2 * np.arange(COUNT, dtype="float32")[::-1]
    np.testing.assert_array_equal(run(Cut(parts, backwards)(reversed_through_scratch())), expected)


def test_a_kernel_as_written_is_one_part() -> None:
    func = reversed_through_scratch()
    assert sum(map(is_phase, statements(func))) == 2
    tvm.ir.assert_structural_equal(func, with_parts(func, 1))


@pytest.mark.parametrize("level", [*LEVELS, "cortex-a72 -mtriple=aarch64-linux-gnu"])
@pytest.mark.parametrize("name", campaign.FAMILIES)
def test_kernels_are_nothing_but_scratch_and_phases(name: str, level: str) -> None:
    """Anything else would be done by no part, or once by each."""
    family, profile = campaign.FAMILIES[name], profile_of(f"llvm -mcpu={level}")
    for case in campaign.sample(family.cases(profile), 8, 0):
        func = kernel(family.spec(case), profile)
        work = [s for s in statements(func) if not isinstance(s, tirx.AllocBuffer)]
        assert work
        assert all(map(is_phase, work))
