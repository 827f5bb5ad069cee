"""Dense kernels against the NumPy meaning: every level that runs here, every kind, ragged sizes."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tvm
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import (
    Rows,
    pack_rows,
    pack_weight,
    pad_columns,
    pad_weight_columns,
    padded_tokens,
    words,
)
from gsb_tvm.dialect.specs import Dense, Kind, Operand, Step, Thresholds
from gsb_tvm.schedules.dense import Method, column_tile, kernel
from gsb_tvm.schedules.dense.parameters import usual
from gsb_tvm.schedules.dense.tiles import lines_ahead, tiles
from gsb_tvm.targets import Profile, resolve
from tests.effort import examples
from tests.schedules import levels
from tests.schedules.cuts import CUTS, WHOLE, Cut

Array = npt.NDArray[Any]
Draw = Callable[[tuple[int, ...]], npt.NDArray[np.bool_]]

RUN_CPUS = (*levels.LEVELS, levels.AMX, *levels.ARM[:2])
WIDTHS = (1, 24, 31, 32, 33, 63, 64, 65, 127, 128, 384)
FILLS = ("random", "zeros", "ones")
EPILOGUES = ("plain", "residual", "affine", "sign", "masked", "mask")
STEPS = {
    "plain": (),
    "residual": (
        Step("mul", Operand.SCALAR),
        Step("add", Operand.COLUMN),
        Step("add", Operand.TENSOR),
    ),
    "affine": (
        Step("add", Operand.TENSOR),
        Step("mul", Operand.COLUMN),
        Step("mul", Operand.TENSOR),
        Step("add", Operand.COLUMN),
    ),
}


def profile_of(cpu: str) -> Profile:
    arch = "aarch64" if cpu in levels.ARM else "x86_64"
    return resolve(f"llvm -mtriple={arch}-linux-gnu -mcpu={cpu}")


def runnable(cpu: str) -> Profile:
    return levels.runnable(levels.target_of(cpu))


def make_spec(
    profile: Profile,
    rows: Rows,
    activation: Kind,
    weight: Kind,
    epilogue: str,
    columns: tuple[int, int],
) -> Dense:
    """A spec with ``columns = (groups, width)`` outputs."""
    tile = column_tile(profile)
    count = columns[0] * columns[1]
    if epilogue in STEPS:
        return Dense(rows, activation, weight, count, tile, STEPS[epilogue])
    out = Rows(rows.batch, rows.tokens, *columns)
    return Dense(rows, activation, weight, count, tile, (), Thresholds(out, Kind(epilogue)))


def fill(how: str, rng: np.random.Generator) -> Draw:
    if how == "random":
        return lambda shape: rng.random(shape) < 0.5
    return lambda shape: np.full(shape, how == "ones")


def arguments(spec: Dense, rng: np.random.Generator, how: str = "random") -> list[Array]:
    """Inputs of ``spec``. Floats are small integers, so every step is exact in any order."""
    rows, k = spec.rows, spec.rows.features
    draw = fill(how, rng)
    named: dict[str, Array] = {"a_bits": pack_rows(draw((rows.batch, rows.tokens, k)), rows)}
    if spec.activation is Kind.MASKED:
        has_zeros = rng.random() < 0.6
        nonzero = rng.random((rows.batch, rows.tokens, k)) < (0.8 if has_zeros else 2)
        named["a_nonzero"] = pack_rows(nonzero, rows)
        named["a_zeros"] = np.array([int(not nonzero.all())], np.int32)
    for name, plane in (
        ("weight", draw((spec.columns, k))),
        ("weight_nonzero", rng.random((spec.columns, k)) < 0.8),
    ):
        if spec.thresholds is not None:
            plane = pad_weight_columns(plane, spec.thresholds.rows)
        named[name] = pack_weight(plane, groups=rows.groups, column_tile=spec.column_tile)
    for name, shape, dtype in spec.inputs():
        if name.endswith(("lo", "width", "flip")):
            named[name] = threshold(spec, rng, name, shape, dtype)
        elif name.startswith("operand"):
            named[name] = rng.integers(-4, 5, shape).astype(dtype)
    for name, shape, _ in spec.inputs():
        if name in ("a_bits", "a_nonzero"):  # the content of padding tokens is unspecified
            noise = rng.integers(0, 2**32, shape, dtype=np.uint32)
            named[name][..., rows.tokens :] = noise[..., rows.tokens :]
    return [named[name] for name, _, _ in spec.inputs()]


def threshold(
    spec: Dense, rng: np.random.Generator, name: str, shape: tuple[int, ...], dtype: str
) -> Array:
    """Two-sided intervals around the middle, some empty, some everything; padding is empty."""
    assert spec.thresholds is not None
    rows, spread = spec.thresholds.rows, int(2 * spec.rows.features**0.5) + 2
    count = rows.features
    out = np.zeros(shape, dtype)
    if name == "flip":
        real = pad_columns(np.ones(count, bool), rows)
        flags = rng.random(real.shape) < 0.5
        flips = np.packbits(flags & real, bitorder="little").view(np.uint32)
        out[: len(flips)] = flips
        return out
    if name.endswith("lo"):
        values = rng.integers(-spread, spread, count, dtype=dtype)
        values[rng.random(count) < 0.1] = np.iinfo(dtype).max
        out[:] = np.iinfo(dtype).max
        padded = pad_columns(values, rows, np.iinfo(dtype).max)
    else:
        values = rng.integers(0, 3 if name == "zero_width" else spread, count, dtype=dtype)
        padded = pad_columns(values, rows)
    out[: len(padded)] = padded
    return out


def padding(name: str, spec: Dense) -> bool:
    return name.endswith(("_bits", "_nonzero")) and spec.thresholds is not None


def written(spec: Dense, profile: Profile) -> Any:
    """The kernel; by tile products where there are any, even where counting would be faster."""
    return kernel(
        spec, profile, usual(Method.TILES, spec, profile) if profile.has_amx_int8 else None
    )


class Compiled:
    """A kernel with guarded outputs: nothing outside the logical shape may be written."""

    def __init__(self, spec: Dense, profile: Profile, cut: Cut = WHOLE, func: Any = None) -> None:
        self.spec = spec
        self.main = levels.compiled(cut(func or written(spec, profile)), profile)["main"]

    def __call__(self, inputs: list[Array]) -> list[Array]:
        outputs = [np.full(s, 7, d) for _, s, d in self.spec.outputs()]
        tensors = [tvm.runtime.tensor(array) for array in (*inputs, *outputs)]
        self.main(*tensors)
        return [t.numpy() for t in tensors[len(inputs) :]]

    def check(self, inputs: list[Array]) -> None:
        expected = oracle.compute(self.spec, inputs)
        for (name, _, _), found, want in zip(
            self.spec.outputs(), self(inputs), expected, strict=True
        ):
            if padding(name, self.spec):
                found, want = (x[..., : self.spec.rows.tokens] for x in (found, want))
            np.testing.assert_array_equal(found, want, err_msg=f"{name} of {self.spec}")


def check(spec: Dense, profile: Profile, cut: Cut, rng: np.random.Generator, draws: int) -> None:
    """Compare ``draws`` data sets of one spec; the first ones are constant planes."""
    compiled = Compiled(spec, profile, cut)
    for i in range(draws):
        compiled.check(arguments(spec, rng, FILLS[2 - i] if i < 2 else "random"))


@st.composite
def cases(draw: Any) -> tuple[Rows, Kind, Kind, str, tuple[int, int]]:
    """Ragged shapes and every kind; wide rows are kept for the campaign."""
    rows = Rows(
        draw(st.integers(1, 3)),
        draw(st.integers(1, 70)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from(WIDTHS)),
    )
    columns = (draw(st.integers(1, 3)), draw(st.sampled_from(WIDTHS[:-1])))
    activation, weight = (
        draw(st.sampled_from(Kind)),
        draw(st.sampled_from([Kind.SIGN, Kind.MASKED])),
    )
    return rows, activation, weight, draw(st.sampled_from(EPILOGUES)), columns


@pytest.mark.parametrize("cpu", RUN_CPUS)
@seed(20)
@settings(
    max_examples=examples(20),
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(case=cases(), cut=CUTS, number=st.integers(0, 2**32))
def test_matches_the_oracle(cpu: str, case: Any, cut: Cut, number: int) -> None:
    profile = runnable(cpu)
    draws = 4 if levels.is_emulated(profile) else 26
    check(make_spec(profile, *case), profile, cut, np.random.default_rng(number), draws)


@pytest.mark.parametrize("cpu", RUN_CPUS)
@pytest.mark.parametrize("features", [2080])
@pytest.mark.parametrize("activation", list(Kind))
def test_wide_rows(cpu: str, features: int, activation: Kind) -> None:
    """Byte counters are widened in time: all bits differ over more words than a byte can count."""
    profile = runnable(cpu)
    spec = make_spec(profile, Rows(1, 7, 1, features), activation, Kind.SIGN, "plain", (1, 40))
    compiled = Compiled(spec, profile)
    for ones in (True, False):
        shape = (spec.columns, features)
        inputs = arguments(spec, np.random.default_rng(1), "ones" if ones else "zeros")
        index = [name for name, _, _ in spec.inputs()].index("weight")
        inputs[index] = pack_weight(
            np.full(shape, not ones), groups=1, column_tile=spec.column_tile
        )
        compiled.check(inputs)


@pytest.mark.parametrize("cpu", RUN_CPUS)
def test_intervals_modulo_2_to_32(cpu: str) -> None:
    """An interval may pass 2**32, hold everything, or begin at either end of int32."""
    profile = runnable(cpu)
    rows = Rows(1, 3, 1, 2**14)  # the fewest features with 32-bit thresholds
    spec = make_spec(profile, rows, Kind.SIGN, Kind.SIGN, "masked", (1, 64))
    compiled = Compiled(spec, profile)
    lows = [5, -5, 0, 64, -64, -65, 65, 2**31 - 1, -(2**31)]
    widths = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 3, 2**32 - 40]
    pairs = [(low, width) for low in lows for width in widths]
    rng = np.random.default_rng(3)
    names = [name for name, _, _ in spec.inputs()]
    for _ in range(4):
        inputs = arguments(spec, rng)
        for prefix in ("", "zero_"):
            order = rng.permutation(len(pairs))
            lo, width = inputs[names.index(f"{prefix}lo")], inputs[names.index(f"{prefix}width")]
            lo[: len(pairs)] = [pairs[i][0] for i in order]
            width[: len(pairs)] = [pairs[i][1] for i in order]
        compiled.check(inputs)


@pytest.mark.parametrize("activation", [Kind.SIGN, Kind.MASK])
def test_intervals_of_the_longest_rows_in_16_bits(activation: Kind) -> None:
    """Dots of either sign as large as can be, bounds at both ends of their types."""
    profile = runnable(levels.ARM[0])
    rows = Rows(1, 3, 1, 2**14 - 33)
    spec = make_spec(profile, rows, activation, Kind.SIGN, "masked", (1, 64))
    compiled = Compiled(spec, profile)
    features, most = rows.features, 2**15 - 1
    lows = [0, features, -features, features + 1, -features - 1, most, -most - 1]
    widths = [0, 1, features, 2 * features, 2**15, 2**16 - 1]
    pairs = [(low, width) for low in lows for width in widths]
    names = [name for name, _, _ in spec.inputs()]
    rng = np.random.default_rng(3)
    for how in FILLS:
        inputs = arguments(spec, rng, how)
        for prefix in ("", "zero_"):
            chosen = rng.permutation(len(pairs))
            for name, which in (("lo", 0), ("width", 1)):
                array = inputs[names.index(f"{prefix}{name}")]
                array[: len(pairs)] = [pairs[i][which] for i in chosen]
        compiled.check(inputs)


@pytest.mark.parametrize("activation", list(Kind))
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_compiles_for_arm(activation: Kind, epilogue: str) -> None:
    profile = profile_of("cortex-a72")
    rows = Rows(1, 13, 2, 70)
    spec = make_spec(profile, rows, activation, Kind.SIGN, epilogue, (1, 70))
    levels.compiled(kernel(spec, profile), profile)


def test_the_next_block_is_asked_for_once() -> None:
    for cpu in (*levels.LEVELS, "cortex-a72"):
        shape = tiles(profile_of(cpu))
        for features in (1, 33, 384, 1536, 4096):
            for tokens in (1, 7, 198, 577):
                token_tiles = -(-tokens // shape.rows)
                each, lines = lines_ahead(words(features), shape, token_tiles)
                block = words(features) * lines
                assert lines * 64 == shape.column_tile * 4
                assert block <= each * token_tiles < block + token_tiles


def test_packed_shapes_agree() -> None:
    """The tile of every level holds whole output words."""
    for cpu in RUN_CPUS:
        tile = column_tile(profile_of(cpu))
        assert tile % 32 == 0
        spec = make_spec(profile_of(cpu), Rows(1, 5, 1, 33), Kind.SIGN, Kind.SIGN, "sign", (3, 33))
        assert spec.computed_columns == 3 * words(33) * 32
        assert spec.outputs()[0][1] == (1, 6, padded_tokens(5))


@pytest.mark.parametrize("cpu", [*levels.ARM, "cortex-x1", "apple-m1"])
@pytest.mark.parametrize("features", [384, 1536])
def test_sums_stay_in_registers(cpu: str, features: int) -> None:
    """The loop over words on Neon counts and loads; nothing of it goes to the stack."""
    profile = resolve(f"llvm -mtriple=aarch64-linux-gnu -mcpu={cpu}")
    spec = make_spec(profile, Rows(1, 198, 1, features), Kind.SIGN, Kind.SIGN, "sign", (1, 64))
    library = levels.compiled(kernel(spec, profile), profile)
    blocks = re.split(r"\n(?=\.LBB)", library.mod.inspect_source("s"))
    names = [re.findall(r"^\t([a-z]\S*)", block, re.MULTILINE) for block in blocks]
    loop = next(found for found in names if found.count("cnt") == 6 * 32)
    last = len(loop) - loop[::-1].index("cnt")
    counted = Counter(loop[loop.index("cnt") : last])
    assert counted["uadalp"] >= 6 * 16 - 4
    assert not counted.keys() & {"ldr", "ldp", "str", "stp"}
    assert 6 * 4096 / counted.total() > 32
