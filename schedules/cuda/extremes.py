"""Extremes over all blocks of a launch, for the next launch to read."""

from collections.abc import Sequence

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.cuda.floats import is_nan
from gsb_tvm.schedules.cuda.grid import (
    WARP,
    Place,
    address,
    do,
    last_of,
    shared,
    state,
    synchronize,
)
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put

_NAN = 0xFFFFFFFF


class Extremes:
    """The largest of some numbers in each of ``count`` places; NaN where one of them is NaN.

    Numbers stand as unsigned integers in the same order, of which 0 is below all: so state that is
    zero knows of none yet.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._state = state("extremes", count + 1)

    def take(self, number: int, value: Expr) -> None:
        """Take in a thread's ``value``; every lane of the warp must."""
        _take(self._state, number, _key(value))

    def take_of_block(self, place: Place, values: Sequence[Expr]) -> None:
        """Take in a thread's ``values``, one for each place; every thread of the block must.

        Warps meet in shared memory first: all blocks meet in the one word of the state.
        """
        if place.threads == WARP:
            for number, value in enumerate(values):
                self.take(number, value)
            return
        largest = shared((self._count,), "int32")
        with T.If(place.thread < self._count), T.Then():
            put(largest, T.int32(0), place.thread)
        synchronize()
        for number, value in enumerate(values):
            _take(largest, number, _key(value))
        synchronize()
        with T.If(place.warp == 0), T.Then():
            for number in range(self._count):
                _take(self._state, number, T.reinterpret("uint32", largest[number]))

    def read(self, number: int) -> Expr:
        """The largest, in a launch after the one that took."""
        key = bind(T.reinterpret("uint32", self._state[number]))
        bits = T.Select(key >= T.uint32(1 << 31), key & T.uint32((1 << 31) - 1), ~key)
        return bind(T.reinterpret("float32", bits))

    def forget(self, place: Place, blocks: int) -> None:
        """Leave zeros, once every block of the launch has read; every thread must come here."""
        synchronize()
        with T.If(place.thread == 0), T.Then():
            with last_of(blocks, address(self._state, self._count)):
                for number in range(self._count + 1):
                    put(self._state, T.int32(0), number)


def _key(value: Expr) -> Expr:
    """An unsigned integer in the order of floats, above 0."""
    bits = bind(T.reinterpret("uint32", value))
    ordered = T.Select(bits >= T.uint32(1 << 31), ~bits, bits | T.uint32(1 << 31))
    return bind(T.Select(is_nan(value), T.uint32(_NAN), ordered))


def _take(buffer: Buffer, number: int, key: Expr) -> None:
    do("gsb_warp_max_to", address(buffer, number), key)
