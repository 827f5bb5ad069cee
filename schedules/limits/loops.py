"""Loops that do nothing but one kind of work, as small kernels.

Chains of operations that depend on nothing but themselves and stay in registers; so many side by
side that their latency is hidden. LLVM can neither drop nor hoist any of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.dense import amx_tiles as amx
from gsb_tvm.schedules.dense.carry_save import count_carry_save
from gsb_tvm.schedules.dense.counters import Tile
from gsb_tvm.schedules.dense.formula import Part, Term
from gsb_tvm.schedules.dense.lookup import shuffled
from gsb_tvm.schedules.dense.tiles import (
    AMX_ROW_BYTES,
    AMX_ROWS,
    CARRY_SAVE_CHUNK,
    Method,
    tiles,
)
from gsb_tvm.schedules.vector import (
    bind,
    load,
    local,
    popcount,
    prim_func,
    splat,
    store,
    workspace,
)
from gsb_tvm.targets import Profile

Expr = Any
STEPS = 2048  # of each chain in a call: some ten microseconds
NIBBLE_PAIRS = 2 * 4  # products that two lookups in a byte's lane count


@dataclass(frozen=True)
class Loop:
    """A limit.

    Attributes
    ----------
    func
        Its PrimFunc, with the arguments ``arrays``.
    work
        Multiply-accumulates of one call, or bytes read.
    """

    name: str
    func: tirx.PrimFunc
    arrays: tuple[np.ndarray, ...]
    work: float


def counting(profile: Profile) -> Loop:
    """Products of bits, by the instructions that the dense kernels of this machine use."""
    method = tiles(profile).method
    if method is Method.WORDS:
        lanes = profile.lanes
        return _popcounts("xor, popcount, add", "uint32", lanes, 24)
    if method is Method.LOOKUP:
        lanes = tiles(profile).lanes
        func = _chains("uint8", lanes, 10, 2, _look_up)
        work = STEPS * 10 * lanes * NIBBLE_PAIRS
        return Loop("two lookups, two adds", func, _arrays("uint8", lanes, 10, 2), work)
    if method is Method.BYTES:
        return _popcounts("xor, byte popcount, add", "uint8", 4 * profile.lanes, 16)
    return _carry_saves(profile.lanes)


def tile_products() -> Loop:
    """Products of AMX tiles, on four sums from four operands."""
    shape, sums = (4, AMX_ROWS, AMX_ROW_BYTES), (4, AMX_ROWS, amx.COLUMNS)

    def body(start: Any, end: Any) -> None:
        amx.configure(workspace((AMX_ROW_BYTES,), "int8"), 0)
        for tile in range(4):
            amx.clear(tile)
            amx.load_tile(4 + tile, start, tile, 0, 0)
        with T.serial(0, STEPS):
            for tile in range(4):
                amx.multiply(tile, 4 + tile // 2, 6 + tile % 2, signed=True)
        for tile in range(4):
            amx.store_tile(tile, end, tile, 0, 0, stride_bytes=AMX_ROW_BYTES)
        amx.release()

    func = prim_func([("start", shape, "int8"), ("end", sums, "int32")], body)
    start = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), shape)
    work = STEPS * 4 * AMX_ROWS * amx.COLUMNS * AMX_ROW_BYTES
    return Loop("tile products", func, (start, np.empty(sums, np.int32)), work)


def multiply_adds(profile: Profile) -> Loop:
    """Float products, each added to a sum; one instruction where the machine has that."""
    chains = 24 if profile.has_avx512 or profile.has_neon else 12
    func = _chains("float32", profile.lanes, chains, 2, lambda x, b, c: x * b + c)
    work = STEPS * chains * profile.lanes
    name = "fused multiply-add" if profile.has_fma else "multiply, add"
    return Loop(name, func, _arrays("float32", profile.lanes, chains, 2), work)


def reading(profile: Profile, size: int) -> Loop:
    """Adding up ``size`` floats, from whatever cache holds them."""
    lanes, sums = profile.lanes, 8
    rounds = max(1, size // (sums * lanes))
    count = rounds * sums * lanes

    def body(source: Any, total: Any) -> None:
        chains = [local((lanes,), "float32") for _ in range(sums)]
        for chain in chains:
            store(chain, splat(0.0, lanes), 0, lanes=lanes)
        with T.serial(0, rounds) as i:
            for j, chain in enumerate(chains):
                value = load(source, (i * sums + j) * lanes, lanes=lanes)
                store(chain, load(chain, 0, lanes=lanes) + value, 0, lanes=lanes)
        for j, chain in enumerate(chains):
            store(total, load(chain, 0, lanes=lanes), j * lanes, lanes=lanes)

    tensors = [("source", (count,), "float32"), ("total", (sums * lanes,), "float32")]
    arrays = (np.ones(count, np.float32), np.empty(sums * lanes, np.float32))
    return Loop("load, add", prim_func(tensors, body), arrays, 4.0 * count)


def _popcounts(name: str, dtype: str, lanes: int, chains: int) -> Loop:
    func = _chains(dtype, lanes, chains, 1, lambda x, b: x + popcount(x ^ b))
    work = STEPS * chains * lanes * np.dtype(dtype).itemsize * 8
    return Loop(name, func, _arrays(dtype, lanes, chains, 1), work)


def _look_up(x: Expr, low: Expr, high: Expr) -> Expr:
    """As in the kernel, with the sum as the table: what it holds takes no time."""
    return x + (shuffled(x, low) + shuffled(x, high))


def _chains(
    dtype: str, lanes: int, chains: int, constants: int, step: Callable[..., Expr]
) -> tirx.PrimFunc:
    """PrimFunc of ``chains`` independent ``x = step(x, *constants)``, each ``STEPS`` times."""

    def body(start: Any, end: Any) -> None:
        held = [bind(load(start, (chains + j) * lanes, lanes=lanes)) for j in range(constants)]
        values = [local((lanes,), dtype) for _ in range(chains)]
        for i, value in enumerate(values):
            store(value, load(start, i * lanes, lanes=lanes), 0, lanes=lanes)
        with T.serial(0, STEPS):
            for value in values:
                store(value, step(load(value, 0, lanes=lanes), *held), 0, lanes=lanes)
        for i, value in enumerate(values):
            store(end, load(value, 0, lanes=lanes), i * lanes, lanes=lanes)

    first = ("start", ((chains + constants) * lanes,), dtype)
    return prim_func([first, ("end", (chains * lanes,), dtype)], body)


def _arrays(dtype: str, lanes: int, chains: int, constants: int) -> tuple[np.ndarray, np.ndarray]:
    """Arguments of :func:`_chains`; floats below 1 keep sums of products away from infinity."""
    rng = np.random.default_rng(0)
    size = (chains + constants) * lanes
    if dtype == "float32":
        start = rng.random(size, dtype=np.float32)
    else:
        start = rng.integers(0, np.iinfo(dtype).max, size, dtype=dtype)
    return start, np.empty(chains * lanes, dtype)


def _carry_saves(lanes: int) -> Loop:
    """The kernel's own adders on one token's words in L1 and weights in registers."""
    words, vectors, rounds = 2 * CARRY_SAVE_CHUNK, 2, 128
    dtype = "uint32"

    def body(tokens: Any, start: Any, end: Any) -> None:
        weights = [local((lanes,), dtype) for _ in range(vectors)]
        for j, weight in enumerate(weights):
            store(weight, load(start, j * lanes, lanes=lanes), 0, lanes=lanes)
        tile = Tile(
            rows=1,
            vectors=vectors,
            lanes=lanes,
            words=words,
            activation=lambda _term, word, _row: tokens[word],
            weight=lambda _term, _word, vector: load(weights[vector], 0, lanes=lanes),
        )
        with T.serial(0, rounds):
            total = count_carry_save(tile, (Term(1, Part.BITS, Part.BITS),), CARRY_SAVE_CHUNK)
            for (_, j), count in total.items():
                mixed = load(weights[j], 0, lanes=lanes) ^ T.cast(count, f"{dtype}x{lanes}")
                store(weights[j], mixed, 0, lanes=lanes)
        for j, weight in enumerate(weights):
            store(end, load(weight, 0, lanes=lanes), j * lanes, lanes=lanes)

    shape = (vectors * lanes,)
    tensors = [("tokens", (words,), dtype), ("start", shape, dtype), ("end", shape, dtype)]
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 2**32, size, dtype=np.uint32) for _, size, _ in tensors]
    work = rounds * words * vectors * lanes * 32
    return Loop("carry-save adders", prim_func(tensors, body), tuple(arrays), work)
