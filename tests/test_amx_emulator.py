"""The AMX emulator against NumPy, on instructions assembled here byte by byte."""

import ctypes
import faulthandler
import mmap
import os
import signal
import threading

import numpy as np
import pytest

from gsb_tvm.targets.host import host
from tests import amx
from tests.amx import Kind

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
R8, R9, R10, R11, R12, R13, R14, R15 = range(8, 16)
SAVED = (RBX, RBP, R12, R13, R14, R15)
RETURN = b"\xc3"
PREFIX = {"none": 0, "66": 1, "f3": 2, "f2": 3}
DOT = {"uu": "none", "us": "66", "su": "f3", "ss": "f2"}

if reason := amx.lacking():
    pytest.skip(reason, allow_module_level=True)

# Where the CPU has tiles, products, addresses and configurations below are its own.
only_emulated = pytest.mark.skipif(
    host().features >= amx.FEATURES, reason="this CPU has AMX: nothing reaches the emulator"
)


def vex(opcode: int, prefix: str, rest: bytes, vvvv: int = 0, x: int = 0, b: int = 0) -> bytes:
    """Three-byte VEX of map 0F38; register numbers stand inverted in it."""
    second = 0x80 | (not x) << 6 | (not b) << 5 | 2
    return bytes([0xC4, second, (~vvvv & 15) << 3 | PREFIX[prefix], opcode]) + rest


def registers(reg: int, rm: int) -> bytes:
    return bytes([0xC0 | reg << 3 | rm])


def memory(
    opcode: int, prefix: str, reg: int, base: int | None, index: int | None, scale: int, offset: int
) -> bytes:
    """An instruction with base + index * scale + offset, the shortest offset that holds it."""
    number = 4 if index is None else index
    sib = {1: 0, 2: 1, 4: 2, 8: 3}[scale] << 6 | (number & 7) << 3
    if base is None:
        mod, sib, tail = 0, sib | 5, offset.to_bytes(4, "little", signed=True)
    elif offset == 0 and base & 7 != RBP:
        mod, sib, tail = 0, sib | base & 7, b""
    elif -128 <= offset < 128:
        mod, sib, tail = 1, sib | base & 7, offset.to_bytes(1, "little", signed=True)
    else:
        mod, sib, tail = 2, sib | base & 7, offset.to_bytes(4, "little", signed=True)
    rest = bytes([mod << 6 | reg << 3 | 4, sib]) + tail
    return vex(opcode, prefix, rest, x=number >> 3, b=(base or 0) >> 3)


def load(tile: int, base: int, index: int | None, scale: int = 1, offset: int = 0) -> bytes:
    return memory(0x4B, "f2", tile, base, index, scale, offset)


def store(tile: int, base: int, index: int | None, scale: int = 1, offset: int = 0) -> bytes:
    return memory(0x4B, "f3", tile, base, index, scale, offset)


def configure(base: int, index: int | None = None, scale: int = 1, offset: int = 0) -> bytes:
    return memory(0x49, "none", 0, base, index, scale, offset)


def dot(kind: str, total: int, left: int, right: int) -> bytes:
    return vex(0x5E, DOT[kind], registers(total, left), vvvv=right)


def clear(tile: int) -> bytes:
    return vex(0x49, "f2", registers(tile, 0))


RELEASE = vex(0x49, "none", registers(0, 0))


def put(register: int, value: int | np.ndarray) -> bytes:
    """MOV of a number, or of an array's address."""
    number = value if isinstance(value, int) else value.ctypes.data
    return bytes([0x48 | register >> 3, 0xB8 | register & 7]) + number.to_bytes(8, "little")


def saving(code: bytes) -> bytes:
    """``code`` between pushes and pops of the registers that belong to the caller."""
    pushes = b"".join(bytes([0x40 | r >> 3, 0x50 | r & 7]) for r in SAVED)
    pops = b"".join(bytes([0x40 | r >> 3, 0x58 | r & 7]) for r in reversed(SAVED))
    return pushes + code + pops + RETURN


def call(code: bytes, *arguments: int | np.ndarray) -> None:
    amx.emulator()
    with mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as room:
        room.write(code)
        place = ctypes.c_char.from_buffer(room)
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(arguments))
        function(ctypes.addressof(place))(
            *(a if isinstance(a, int) else a.ctypes.data for a in arguments)
        )
        del place


def configuration(*tiles: tuple[int, int]) -> np.ndarray:
    """64 bytes for tiles of (rows, bytes in a row)."""
    out = np.zeros(64, np.uint8)
    out[0] = 1
    for i, (rows, row_bytes) in enumerate(tiles):
        out[16 + 2 * i], out[48 + i] = row_bytes, rows
    return out


def bytes_of(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("kind", DOT)
@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 64), (1, 1, 4), (5, 3, 28), (16, 7, 64)])
def test_a_product_is_numpys(kind: str, m: int, n: int, k: int) -> None:
    rng = np.random.default_rng([m, n, k])
    left, right = bytes_of(rng, m, k), bytes_of(rng, k // 4, 4 * n)
    total = rng.integers(-(2**31), 2**31, (m, n)).astype(np.int32)
    code = b"".join([
        configure(RDI),
        load(5, RSI, R8), load(6, RDX, R9), load(1, RCX, R9),
        dot(kind, 1, 5, 6), store(1, RCX, R9), RELEASE, RETURN,
    ])  # fmt: skip
    tiles = configuration((0, 0), (m, 4 * n), (0, 0), (0, 0), (0, 0), (m, k), (k // 4, 4 * n))
    got = total.copy()
    call(code, tiles, left, right, got, k, 4 * n)

    def typed(array: np.ndarray, letter: str) -> np.ndarray:
        return array.view(np.int8 if letter == "s" else np.uint8).astype(np.int64)

    columns = right.reshape(k // 4, n, 4).transpose(0, 2, 1).reshape(k, n)
    with np.errstate(over="ignore"):
        want = total + typed(left, kind[0]) @ typed(columns, kind[1])
    np.testing.assert_array_equal(got, want.astype(np.int32))  # sums wrap


@pytest.mark.parametrize("base", [r for r in range(16) if r != RSP])
@pytest.mark.parametrize("index", [None, R9, R13])
@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (2, -64), (4, 127), (8, 5000)])
def test_every_form_of_address(base: int, index: int | None, scale: int, offset: int) -> None:
    """Rows come from base + offset + row * index * scale; without an index all are row 0."""
    room, out = bytes_of(np.random.default_rng(1), 40_000), np.zeros((4, 8), np.uint8)
    tiles = configuration((0, 0), (0, 0), (4, 8))
    start, stride = 200, 24
    step = stride
    if base == index:  # then the address is the stride; rows of other memory must not be read
        tiles, step = configuration((0, 0), (0, 0), (1, 8)), 0
    code = saving(
        put(RDI, tiles) + configure(RDI)
        + (b"" if index is None else put(index, stride)) + put(base, room.ctypes.data + start)
        + load(2, base, index, scale, offset)
        + put(RSI, out) + put(R10, 8) + store(2, RSI, R10) + RELEASE
    )  # fmt: skip
    call(code)
    rows = 1 if base == index else 4
    step = 0 if index is None else step * scale
    want = [room[start + offset + row * step :][:8] for row in range(rows)]
    np.testing.assert_array_equal(out[:rows], want)


def test_the_stack_pointer_as_base() -> None:
    """What was pushed last stands at [rsp]."""
    out = np.zeros((1, 8), np.uint8)
    code = configure(RDI) + b"\x52" + load(0, RSP, None) + b"\x5a" + store(0, RSI, None)
    call(code + RELEASE + RETURN, configuration((1, 8)), out, 0x1122334455667788)
    assert out.view(np.uint64)[0, 0] == 0x1122334455667788


def test_a_configuration_behind_the_code() -> None:
    """LDTILECFG [rip + offset], as compilers write it for a constant."""
    tiles, out = configuration((2, 4)), np.ones((2, 4), np.uint8)
    rest = clear(0) + store(0, RSI, RDX) + RELEASE + RETURN
    configure_here = vex(0x49, "none", bytes([5]) + len(rest).to_bytes(4, "little"))
    call(configure_here + rest + tiles.tobytes(), 0, out, 4)
    assert not out.any()


def test_the_configuration_comes_back() -> None:
    tiles, out = configuration((3, 12), (0, 0), (16, 64)), np.ones(64, np.uint8)
    stored = memory(0x49, "66", 0, RSI, None, 1, 0)
    call(configure(RDI) + stored + RELEASE + RETURN, tiles, out)
    np.testing.assert_array_equal(out, tiles)
    call(stored + RETURN, tiles, out)
    assert not out.any(), "after tilerelease"


def test_loads_clear_what_they_do_not_fill() -> None:
    """A tile keeps nothing beyond its configured extents, also for a hinted load."""
    rng = np.random.default_rng(2)
    full, part = bytes_of(rng, 16, 64), bytes_of(rng, 16, 64)
    out = np.ones((16, 64), np.uint8)
    hinted = memory(0x4B, "66", 0, RDX, R8, 1, 0)
    code = configure(RDI) + load(0, RDX, R8) + hinted + store(0, RCX, R8) + RELEASE + RETURN
    call(code, configuration((3, 20)), full, part, out, 64)
    np.testing.assert_array_equal(out[:3, :20], part[:3, :20])
    assert (out[3:] == 1).all()
    assert (out[:, 20:] == 1).all()


@only_emulated
def test_instructions_are_counted() -> None:
    before = amx.counts()
    tiles = configuration(*[(1, 4)] * 3)
    code = configure(RDI) + clear(0) + load(1, RDI, None) + load(2, RDI, None) + dot("ss", 0, 1, 2)
    call(code + store(0, RSI, None) + RELEASE + RETURN, tiles, np.zeros(4, np.uint8))
    after = amx.counts()
    assert {kind: after[kind] - before[kind] for kind in Kind} == {
        Kind.CONFIGURE: 1, Kind.CLEAR: 1, Kind.LOAD: 2, Kind.STORE: 1, Kind.MULTIPLY: 1,
    }  # fmt: skip
    assert not amx.emulator().amx_configured()


@only_emulated
def test_tiles_belong_to_a_thread() -> None:
    """A configuration made here is not there in another thread."""
    call(configure(RDI) + RETURN, configuration((1, 4)))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(amx.emulator().amx_configured()))
    thread.start()
    thread.join()
    assert (seen, amx.emulator().amx_configured()) == ([0], 1)
    call(RELEASE + RETURN)


def broken(index: int, value: int) -> np.ndarray:
    out = configuration((16, 64))
    out[index] = value
    return out


SQUARE = configuration(*[(16, 64)] * 3)
FAULTS = {
    "tiles are not configured": (clear(0), None),
    "without a configured size": (clear(3), SQUARE),
    "two operands are one tile": (dot("us", 0, 1, 1), SQUARE),
    "differ in rows": (dot("us", 0, 1, 2), configuration((15, 64), (16, 64), (16, 64))),
    "differ in columns": (dot("us", 0, 1, 2), configuration((16, 60), (16, 64), (16, 64))),
    "not B's rows": (dot("us", 0, 1, 2), configuration((16, 64), (16, 60), (16, 64))),
    "not whole doublewords": (dot("us", 0, 1, 2), configuration((16, 63), (16, 64), (16, 63))),
    "needs a SIB byte": (vex(0x4B, "f2", bytes([RDI])), SQUARE),
    "palette must be": (b"", broken(0, 2)),
    "reserved byte": (b"", broken(3, 1)),
    "more than 64 bytes": (b"", broken(16, 65)),
    "more than 16 rows": (b"", broken(48, 17)),
    "only one extent": (b"", broken(48, 0)),
    "VEX.W and VEX.L": (bytes([0xC4, 0xE2, 0x7F, 0x49, 0xC0]), SQUARE),
    "a tile above 7": (bytes([0xC4, 0x62, 0x7B, 0x49, 0xC0]), SQUARE),
}


def end_of(code: bytes, *arguments: np.ndarray) -> tuple[int, str]:
    """The signal that a process running ``code`` ends with, and what it says."""
    amx.emulator()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 2)
        if faulthandler.is_enabled():
            faulthandler.enable(file=writer)  # its report belongs to what the process says
        call(code, *arguments)
        os._exit(0)
    os.close(writer)
    with open(reader) as said:
        text = said.read()
    return os.WTERMSIG(os.waitpid(child, 0)[1]), text


@only_emulated
@pytest.mark.parametrize("message", FAULTS)
def test_what_hardware_refuses_ends_the_process(message: str) -> None:
    code, tiles = FAULTS[message]
    setup, arguments = (b"", ()) if tiles is None else (configure(RDI), (tiles,))
    number, text = end_of(setup + code + RETURN, *arguments)
    assert number == signal.SIGABRT
    assert message in text


def test_another_illegal_instruction_is_not_swallowed() -> None:
    ud2 = bytes([0x0F, 0x0B])
    assert end_of(ud2)[0] == signal.SIGILL
