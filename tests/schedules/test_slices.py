"""Dense layers by tables of sums as planes of bits: their numbers, and which layers they are."""

from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import strategies as st
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.dense import Method, kernel, method
from gsb_tvm.schedules.dense.bit_sums import LANES, BitSums, adding
from gsb_tvm.schedules.dense.pairs_epilogue import OCTET
from gsb_tvm.schedules.dense.parameters import usual
from gsb_tvm.schedules.dense.slices_epilogue import numbers, planes
from gsb_tvm.schedules.dense.tiles import can_slice
from gsb_tvm.targets import Profile
from tests.schedules import levels, test_dense
from tests.schedules.cuts import WHOLE, Cut
from tests.schedules.test_dense import EPILOGUES, check, make_spec, profile_of, runnable

CASES = [
    (Rows(1, 66, 1, 384), Kind.SIGN, "sign", (1, 128), Cut(3)),
    (Rows(1, 70, 1, 384), Kind.MASK, "mask", (1, 384), WHOLE),
    (Rows(2, 67, 6, 63), Kind.MASK, "sign", (2, 127), Cut(2, backwards=True)),  # 12 words
    (Rows(1, 7, 7, 31), Kind.MASKED, "plain", (1, 128), Cut(64)),  # 7 words
    (Rows(1, 6, 9, 3), Kind.SIGN, "plain", (1, 128), WHOLE),  # numbers of few bits
    (Rows(2, 69, 1, 192), Kind.SIGN, "affine", (1, 256), Cut(3, backwards=True)),  # 6 words
    (Rows(1, 9, 1, 1600), Kind.MASK, "residual", (1, 128), Cut(2)),  # 50 words
    (Rows(1, 1, 1, 2080), Kind.MASKED, "mask", (1, 256), WHOLE),  # 65 words
]


@st.composite
def cases(draw: Any) -> tuple[Rows, Kind, Kind, str, tuple[int, int]]:
    """For the campaign: what tables can do, where its widths make enough words."""
    rows = Rows(
        draw(st.integers(1, 2)),
        draw(st.integers(1, 70)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from(test_dense.WIDTHS)),
    )
    activation = draw(st.sampled_from(Kind))
    epilogue = draw(st.sampled_from([name for name in EPILOGUES if name != Kind.MASKED]))
    columns = draw(st.sampled_from([(1, 128), (2, 63), (3, 128), (8, 31)]))
    return rows, activation, Kind.SIGN, epilogue, columns


def written(spec: Dense, profile: Profile) -> Any:
    """The kernel by tables, unless rows are too short for any."""
    return kernel(spec, profile, usual(Method.SLICES, spec, profile) if can_slice(spec) else None)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_the_oracle(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ragged tokens and words, sums of all equal and no equal bits, several images, parts."""
    monkeypatch.setattr(test_dense, "written", written)
    profile = runnable(levels.ARM[0])
    rows, activation, epilogue, columns, cut = case
    spec = make_spec(profile, rows, activation, Kind.SIGN, epilogue, columns)
    assert can_slice(spec)
    check(spec, profile, cut, np.random.default_rng(5), 5)


@pytest.mark.parametrize(
    ("cpu", "tokens", "features", "columns", "epilogue", "expected"),
    [
        ("cortex-a72", 198, 384, 384, "sign", Method.SLICES),
        ("cortex-a72", 198, 384, 1536, "mask", Method.SLICES),
        ("cortex-a72", 198, 1536, 384, "residual", Method.SLICES),
        ("cortex-a72", 198, 384, 384, "plain", Method.SLICES),
        ("cortex-a72", 198, 192, 384, "sign", Method.SLICES),
        ("cortex-a72", 198, 192, 384, "plain", Method.PAIRS),  # sums become numbers
        ("cortex-a72", 64, 384, 384, "sign", Method.PAIRS),  # tables do not pay
        ("cortex-a72", 198, 384, 448, "sign", Method.PAIRS),
        ("cortex-a72", 198, 96, 384, "sign", Method.PAIRS),
        ("cortex-a72", 198, 384, 384, "masked", Method.PAIRS),
        ("cortex-a53", 198, 384, 1536, "mask", Method.PAIRS),  # would wait for every table
        ("haswell", 198, 384, 1536, "mask", Method.LOOKUP),
    ],
)
def test_which_layers_go_by_tables(
    cpu: str, tokens: int, features: int, columns: int, epilogue: str, expected: Method
) -> None:
    profile = profile_of(cpu)
    rows = Rows(1, tokens, 1, features)
    spec = make_spec(profile, rows, Kind.MASK, Kind.SIGN, epilogue, (1, columns))
    assert method(spec, profile) is expected


def test_an_addition_takes_three_instructions() -> None:
    """Seven planes to three: four additions, and no copies."""

    def body(x: v.Buffer, y: v.Buffer) -> None:
        with adding(), T.serial(0, 256) as i:
            planes = [v.load(x, i, p, 0, lanes=LANES) for p in range(7)]
            zero = T.broadcast(T.uint32(0), LANES)
            total = BitSums([planes[0], zero, zero])
            for plane in planes[1:]:
                total.add(0, [plane])
            for p, plane in enumerate(total.planes()):
                v.store(y, plane, i, p, 0, lanes=LANES)

    profile = runnable(levels.ARM[0])
    tensors = [("x", (256, 7, LANES), "uint32"), ("y", (256, 3, LANES), "uint32")]
    library = levels.compiled(v.prim_func(tensors, body), profile)
    x = np.random.default_rng(0).integers(0, 2**32, (256, 7, LANES), dtype=np.uint32)
    arrays = [tvm.runtime.tensor(a) for a in (x, np.zeros((256, 3, LANES), np.uint32))]
    library["main"](*arrays)
    bits = np.unpackbits(x.view(np.uint8), axis=-1, bitorder="little").sum(1)
    planes = np.unpackbits(arrays[1].numpy().view(np.uint8), axis=-1, bitorder="little")
    np.testing.assert_array_equal(np.einsum("ipc,p->ic", planes, [1, 2, 4]), bits)
    source = library.mod.inspect_source("s")
    code = source[source.index("main_compute_:") :]
    code = code[: code.index("\tret")]
    assert code.count("\tbit\t") <= 4
    assert code.count("\teor\t") <= 8 + 2
    assert "\tmov\tv" not in code


@pytest.mark.parametrize("count", [8, 9, 10, 12, 16])
def test_numbers_and_planes_are_inverse(count: int) -> None:
    """128 numbers of so many bits become planes, and those the numbers again."""

    def body(x: v.Buffer, y: v.Buffer, z: v.Buffer) -> None:
        octets = [v.load(x, i, lanes=OCTET) for i in range(0, 128, OCTET)]
        found = planes(octets, count)
        for p, plane in enumerate(found):
            v.store(z, plane, p, 0, lanes=LANES)
        for i, octet in enumerate(numbers(found)):
            v.store(y, octet, i * OCTET, lanes=OCTET)

    profile = runnable(levels.ARM[0])
    tensors = [(n, (128,), "uint16") for n in "xy"] + [("z", (count, LANES), "uint32")]
    library = levels.compiled(v.prim_func(tensors, body), profile)
    most = 2 ** (count - 1)
    x = np.random.default_rng(1).integers(-most, most, 128).astype(np.int16)
    x[:2] = -most, most - 1
    zeros = np.zeros(128, np.uint16), np.zeros((count, LANES), np.uint32)
    arrays = [tvm.runtime.tensor(a) for a in (x.view(np.uint16), *zeros)]
    library["main"](*arrays)
    np.testing.assert_array_equal(arrays[1].numpy().view(np.int16), x)
    # Bit k of lane i is of the column that the order says.
    i, k = np.divmod(np.arange(128), 32)
    column = 64 * (i // 2) + 8 * (k % 8) + 4 * (i % 2) + k // 8
    bits = np.unpackbits(arrays[2].numpy().view(np.uint8), axis=-1, bitorder="little")
    expected = (x.view(np.uint16)[column] >> np.arange(count)[:, None]) & 1
    np.testing.assert_array_equal(bits, expected)
