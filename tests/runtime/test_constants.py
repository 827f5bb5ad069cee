"""Constants that several programs share."""

import numpy as np

from gsb_tvm.runtime.build import generate
from gsb_tvm.runtime.constants import Constants
from gsb_tvm.runtime.elf import ALIGNMENT


def test_equal_bytes_stand_there_once() -> None:
    constants = Constants()
    first, second = bytes(range(100)), bytes(range(99))
    places = [constants.place(tensor) for tensor in (first, second, first, second)]
    assert places == [0, 2 * ALIGNMENT, 0, 2 * ALIGNMENT]
    data = constants.data()
    assert len(data) == len(constants) == 2 * ALIGNMENT + 99
    assert (data[:100], data[2 * ALIGNMENT :]) == (first, second)


def test_a_symbol_stands_for_something() -> None:
    assert (len(Constants()), Constants().data()) == (0, b"\0")


def test_two_programs_read_the_same_place(popcount, native) -> None:
    constants = Constants()
    codes = [generate(popcount.module, native, f"gsb_b{n}", constants=constants) for n in (1, 2)]
    assert codes[0].program.steps == codes[1].program.steps
    assert len(constants) == len(generate(popcount.module, native).constants)


def test_another_weight_is_added(popcount, changed, native) -> None:
    constants = Constants()
    for case in (popcount, changed):
        generate(case.module, native, constants=constants)
    zeros = np.zeros((32, 8), np.uint32).tobytes()
    assert zeros in constants.data()
    assert len(constants) > len(generate(popcount.module, native).constants)
