"""Samples agree with what the rule's kernel computes, and notice whatever does not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.relax import op as R

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    Binarize,
    Compare,
    Dense,
    Kind,
    Operand,
    Patches,
    Step,
    encode,
)
from gsb_tvm.schedules.families import arranged
from gsb_tvm.schedules.float import is_tunable
from gsb_tvm.targets import resolve
from gsb_tvm.tuning import children
from gsb_tvm.tuning.machines import LocalMachine
from gsb_tvm.tuning.samples import Array, Sample, disagreement, sample
from gsb_tvm.tuning.workloads import Float, Packed, Workload
from tests.dialect.catalogue import SPECS
from tests.schedules.float_functions import lowered, ones
from tests.schedules.levels import compiled

NATIVE = resolve("native")
PACKED = SPECS | {
    "patches": Patches(2, 3, (7, 11), (2, 3), 5, lattice=True, bias=False, prefix=1),
    "patches_float": Patches(1, 2, (8, 8), (2, 2), 24, lattice=False, bias=True, position=True),
}
FLOATS: dict[str, Callable[[], list[Any]]] = {
    "dense": lambda: lowered(lambda x: R.add(R.matmul(x, ones(37, 90)), ones(90)), (1, 9, 37)),
    "softmax": lambda: lowered(lambda x: R.nn.softmax(x), (2, 7, 33)),
    "gelu": lambda: lowered(lambda x: R.nn.gelu(x), (2, 7, 33)),
    "division": lambda: lowered(R.divide, (2, 7, 33), (2, 7, 33)),
    "root": lambda: lowered(R.sqrt, (2, 7, 33)),
    "logarithm": lambda: lowered(R.log, (2, 7, 33)),
    "comparison": lambda: lowered(R.greater, (2, 7, 33), (2, 7, 33)),
    "sign": lambda: lowered(R.sign, (2, 7, 33)),
    "whole numbers": lambda: lowered(lambda x: R.astype(R.round(x), "int8"), (2, 7, 33)),
}


@cache
def workload(name: str) -> Workload:
    if name in PACKED:
        return Packed(encode(PACKED[name]))
    (func,) = [each for each in FLOATS[name]() if is_tunable(each, NATIVE)]
    return Float.of(func)


@cache
def kernel(name: str) -> Any:
    """The rule's, compiled for this machine."""
    work = workload(name)
    return compiled(work.function(NATIVE, work.space(NATIVE)[0]), NATIVE)["main"]


@cache
def drawn(name: str, zeros: bool, seed: int = 0) -> Sample:
    work = workload(name)
    return work.sample(NATIVE, work.space(NATIVE)[0], np.random.default_rng(seed), zeros=zeros)


def run(name: str, found: Sample) -> list[Array]:
    """What the rule's kernel makes of a sample, over outputs that hold something else."""
    with LocalMachine() as machine:
        (arguments,) = children._sets(machine, found, 1)
        kernel(name)(*arguments)
        return [machine.numpy(each).copy() for each in arguments[len(found.inputs) :]]


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("name", [*PACKED, *FLOATS])
def test_the_rules_kernel_agrees(name: str, zeros: bool) -> None:
    for seed in range(2):
        found = drawn(name, zeros, seed)
        assert disagreement(found, run(name, found)) == ""


@pytest.mark.parametrize("name", [*PACKED, *FLOATS])
def test_outputs_that_nobody_wrote_are_noticed(name: str) -> None:
    found = drawn(name, True)
    with LocalMachine() as machine:
        (arguments,) = children._sets(machine, found, 1)
        untouched = [machine.numpy(each) for each in arguments[len(found.inputs) :]]
        assert disagreement(found, untouched)


def copies(found: Sample) -> list[Array]:
    return [array.copy() for array in found.outputs]


BITS = [name for name, spec in PACKED.items() if any(d == "uint32" for *_, d in spec.outputs())]


@pytest.mark.parametrize("name", BITS)
def test_a_flipped_bit_is_noticed(name: str) -> None:
    found, rng = drawn(name, True), np.random.default_rng(1)
    for number, decided in enumerate(found.decided):
        if decided is None:
            continue
        for at in map(tuple, rng.permutation(np.argwhere(decided))[:5]):
            outputs = copies(found)
            outputs[number][at] ^= np.uint32(int(decided[at]) & -int(decided[at]))
            assert disagreement(found, outputs) == f"wrong result: 1 bits of output {number}"


@pytest.mark.parametrize("name", BITS)
def test_padding_tokens_hold_anything(name: str) -> None:
    found = drawn(name, True)
    assert any(decided is not None and not decided.all() for decided in found.decided)
    outputs = [
        array if decided is None else array ^ ~decided
        for array, decided in zip(found.outputs, found.decided, strict=True)
    ]
    assert disagreement(found, outputs) == ""


@pytest.mark.parametrize("name", BITS)
def test_most_bits_are_decided(name: str) -> None:
    """Of tokens that are no padding; an attention may leave some open."""
    spec = PACKED[name]
    rows = spec.q if isinstance(spec, AttentionPlanes) else getattr(spec, "v", None) or spec.rows
    for decided in drawn(name, True).decided:
        if decided is not None:
            real = np.bitwise_count(decided[..., : rows.tokens])
            assert real.mean() > 31.9
            assert not decided[..., rows.tokens :].any()


WITH_FLAG = [name for name in BITS if any(d == "int32" for *_, d in PACKED[name].outputs())]


@pytest.mark.parametrize("name", WITH_FLAG)
def test_a_wrong_flag_is_noticed(name: str) -> None:
    found = drawn(name, True)
    (number,) = [i for i, array in enumerate(found.outputs) if array.dtype == np.int32]
    outputs = copies(found)
    outputs[number] = 1 - outputs[number]
    assert disagreement(found, outputs) == f"wrong result: 1 numbers of output {number}"


@pytest.mark.parametrize("name", [name for name in PACKED if name not in BITS])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9, None])
def test_a_changed_float_is_noticed(name: str, value: float | None) -> None:
    found = drawn(name, True)
    outputs = copies(found)
    last = outputs[0].reshape(-1)
    last[-1] = np.nextafter(last[-1], np.float32(np.inf)) if value is None else value
    assert disagreement(found, outputs) == "wrong result: 1 numbers of output 0"


def test_masked_planes_hold_zeros_when_they_should() -> None:
    for name, spec in PACKED.items():
        for zeros in (True, False):
            flags = {
                key: array
                for (key, *_), array in zip(spec.inputs(), drawn(name, zeros).inputs, strict=True)
                if key.endswith("_zeros")
            }
            assert all(bool(array) is zeros for array in flags.values()), name


def test_the_same_seed_gives_the_same_sample() -> None:
    first, again = (
        drawn("dense_masked", True, 5),
        workload("dense_masked").sample(
            NATIVE, workload("dense_masked").space(NATIVE)[0], np.random.default_rng(5), zeros=True
        ),
    )
    assert all(map(np.array_equal, first.inputs, again.inputs))
    assert not all(map(np.array_equal, first.inputs, drawn("dense_masked", True, 6).inputs))


@pytest.mark.parametrize(
    "spec",
    [
        AttentionPlanes(
            Rows(1, 198, 3, 64), Kind.MASKED, Kind.MASKED, 2, True, 10.0, True, True, (0.7, 0.9)
        ),
        AttentionPlanes(Rows(1, 198, 3, 64), Kind.SIGN, Kind.SIGN, 1, True, 10.0, False, True, ()),
    ],
    ids=["GSB", "signs"],
)
def test_few_bits_of_a_softmax_are_open(spec: AttentionPlanes) -> None:
    found = sample(spec, np.random.default_rng(0), zeros=True)
    decided = found.decided[0]
    assert decided is not None
    total = decided[..., : spec.q.tokens].size * 32
    opened = total - int(np.bitwise_count(decided).sum())
    assert opened < total / 1000
    # And what is decided is neither all set nor all clear.
    share = np.bitwise_count(found.outputs[0] & decided).sum() / total
    assert 0.001 < share < 0.9


@pytest.mark.parametrize("name", ["dense_signs", "dense_bits", "dense_zeros"])
def test_a_sample_of_a_dense_layer_is_in_the_layout_of_its_choice(name: str) -> None:
    work, spec = workload(name), PACKED[name]
    assert isinstance(spec, Dense)
    choices = {choice["column_tile"]: choice for choice in work.space(NATIVE)}
    assert len(choices) > 1
    for choice in choices.values():
        found = work.sample(NATIVE, choice, np.random.default_rng(0), zeros=True)
        wanted = arranged(spec, NATIVE, choice).inputs()
        assert [(a.shape, str(a.dtype)) for a in found.inputs] == [(s, d) for _, s, d in wanted]
        main = compiled(work.function(NATIVE, choice), NATIVE)["main"]
        results = [np.zeros_like(array) for array in found.outputs]
        tensors = [tvm.runtime.tensor(array) for array in (*found.inputs, *results)]
        main(*tensors)
        assert disagreement(found, [t.numpy() for t in tensors[len(found.inputs) :]]) == ""


def of_floats(*values: float, count: int = 20000, **options: float) -> tuple[Sample, Array]:
    """A sample of many ones, and an output whose first numbers are ``values``."""
    wanted = np.ones(count, np.float32)
    got = wanted.copy()
    got[: len(values)] = values
    return Sample([], [wanted], [None], **options), got


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ((1.000019, 0.999981), 0),
        ((1.00003,), 1),
        ((np.nan,), 1),
        ((np.inf, -np.inf, 0.0), 3),
    ],
)
def test_a_tolerance_is_for_last_digits(values: Sequence[float], wrong: int) -> None:
    found, got = of_floats(*values, tolerance=2e-5)
    said = f"wrong result: {wrong} numbers of output 0" if wrong else ""
    assert disagreement(found, [got]) == said


def test_a_tolerance_is_relative_to_the_largest() -> None:
    found, got = of_floats(1.5, tolerance=2e-5)
    found.outputs[0][-1] = got[-1] = 1e6
    assert disagreement(found, [got]) == ""
    found.outputs[0][-1] = got[-1] = np.inf
    assert disagreement(found, [got]) == "wrong result: 1 numbers of output 0"


def test_what_is_no_number_is_like_its_like() -> None:
    found, got = of_floats(np.nan, np.inf, -np.inf, tolerance=2e-5)
    assert disagreement(found, [got]) == "wrong result: 3 numbers of output 0"
    found.outputs[0][:3] = got[:3]
    assert disagreement(found, [got]) == ""


def test_an_edge_turns_few_numbers() -> None:
    found, got = of_floats(0.0, 0.0, tolerance=2e-5, edges=1e-4)
    assert disagreement(found, [got]) == ""
    got[:3] = 0
    assert disagreement(found, [got]) == "wrong result: 3 numbers of output 0"


@pytest.mark.parametrize("name", FLOATS)
def test_only_what_compares_or_rounds_has_edges(name: str) -> None:
    assert bool(drawn(name, True).edges) == (name in ("comparison", "sign", "whole numbers"))


@pytest.mark.parametrize("name", FLOATS)
def test_samples_of_floats_are_numbers(name: str) -> None:
    found = drawn(name, True)
    assert all(np.isfinite(array).all() for array in (*found.inputs, *found.outputs))
    assert all(len(np.unique(array)) > 1 for array in found.outputs)


@pytest.mark.parametrize("name", ["attention_planes", "dense", "comparison", "dense_zeros"])
def test_a_sample_is_written_and_read(name: str, tmp_path: Any) -> None:
    found = replace(drawn(name, True), tolerance=0.25)
    children._write(tmp_path / "sample.npz", found)
    again = children._read(tmp_path / "sample.npz")
    assert (again.tolerance, again.edges) == (found.tolerance, found.edges)
    for mine, other in ((found.inputs, again.inputs), (found.outputs, again.outputs)):
        assert [array.dtype for array in mine] == [array.dtype for array in other]
        assert all(map(np.array_equal, mine, other))
    for mine, other in zip(found.decided, again.decided, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or np.array_equal(mine, other)


def test_what_a_model_computes_is_live_and_its_constants_are_not() -> None:
    rows = Rows(1, 5, 1, 40)
    steps = (Step("mul", Operand.SCALAR), Step("add", Operand.COLUMN), Step("add", Operand.TENSOR))
    spec = Dense(rows, Kind.MASKED, Kind.SIGN, 32, 32, steps)
    names = [name for name, _, _ in spec.inputs()]
    drawn = sample(spec, np.random.default_rng(0), zeros=False)
    live = [names[place] for place in drawn.live]
    assert live == ["a_bits", "a_nonzero", "a_zeros", "operand2"]
    norm = Binarize(rows, Compare(Kind.SIGN), norm=True, shift=True)
    assert sample(norm, np.random.default_rng(0), zeros=False).live == (0,)
