"""Thousands of random cases of all packed families against the oracle, on one instruction set.

    python -m tests.schedules.campaign --level haswell

A case is one kernel on one set of data; it is a mismatch where any word, flag or float that the
kernel writes differs from the oracle's. Every other kernel is the rule's, the rest take any choice
of their space, and all are cut into a random number of parts. Kernels and data come from the
families' own tests, with widths of 1 to 4096: every other kernel has one of ``EDGES``, the rest are
random. Floats in the data are small integers or halves, so float outputs are exact too, in whatever
order of summing.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import AttentionPlanes, Kind, encode, spread_of
from gsb_tvm.schedules.choices import Choice
from gsb_tvm.schedules.families import kernel, space
from gsb_tvm.targets import Profile
from tests.schedules import test_attention_planes as attention_planes
from tests.schedules import test_attention_value as attention_value
from tests.schedules import test_batch_matmul as batch_matmul
from tests.schedules import test_binarize as binarize
from tests.schedules import test_dense as dense
from tests.schedules import test_slices as slices
from tests.schedules import test_value_planes as value_planes
from tests.schedules.cuts import PARTS, Cut
from tests.schedules.levels import AMX, ARM, LEVELS, compiled, obstacle, profile_of, target_of

Array = npt.NDArray[Any]
Draw = Callable[[Any, np.random.Generator, int], list[Array]]

EDGES = (64, 24, 1, 31, 33, 63, 65, 32, 127, 128, 4096)
WIDEST = 4096
CASES = 12000  # 2,000 for each family: three minutes, under emulation half an hour
DRAWS = 12  # sets of data for each kernel: compiling one takes longer than running it on these
MOST_WORK = 2e7  # elementary steps of the oracle in one case, some ten milliseconds


@dataclass(frozen=True)
class Family:
    """Where kernels and data come from.

    ``cases`` makes what the family's tests draw, ``spec`` takes the spec out of it, ``data`` makes
    the n-th inputs, ``space`` the choices, ``kernel`` the PrimFunc of one, ``has`` says which
    machines have it.
    """

    cases: Callable[[Profile], st.SearchStrategy[Any]]
    data: Draw
    spec: Callable[[Any], Any] = lambda case: case
    space: Callable[[Any, Profile], Sequence[Choice | None]] = space
    kernel: Callable[[Any, Profile, Choice | None], Any] = kernel
    has: Callable[[Profile], bool] = lambda profile: True


@dataclass
class Result:
    """What one family's cases gave; ``seconds`` are of the processor."""

    kernels: int = 0
    cases: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def _attention_value(spec: Any, rng: np.random.Generator, n: int) -> list[Array]:
    densities = attention_value.DENSITIES[n % len(attention_value.DENSITIES)]
    zeros = spec.value_kind is Kind.MASKED and n % 3 != 0
    return attention_value.arguments(spec, rng, densities, zeros)


def _attention_planes(case: Any, rng: np.random.Generator, n: int) -> list[Array]:
    draws = attention_planes.DRAWS
    return attention_planes.inputs_of(rng, case, *draws[n % len(draws)])


def _value_planes(spec: Any, rng: np.random.Generator, n: int) -> list[Array]:
    style = value_planes.STYLES[n % len(value_planes.STYLES)]
    return value_planes.inputs_of(rng, spec, style)


def _dense(spec: Any, rng: np.random.Generator, n: int) -> list[Array]:
    return dense.arguments(spec, rng, dense.FILLS[2 - n] if n < 2 else "random")


FAMILIES = {
    "binarize": Family(
        lambda profile: binarize.specs(),
        lambda spec, rng, n: binarize.exact_inputs(rng, spec),
    ),
    "dense": Family(
        lambda profile: dense.cases().map(lambda case: dense.make_spec(profile, *case)),
        _dense,
        space=lambda spec, profile: (None,),
        kernel=lambda spec, profile, _: dense.written(spec, profile),
    ),
    "dense tables": Family(
        lambda profile: slices.cases().map(lambda case: dense.make_spec(profile, *case)),
        _dense,
        space=lambda spec, profile: (None,),
        kernel=lambda spec, profile, _: slices.written(spec, profile),
        has=lambda profile: profile.has_neon,
    ),
    "value_planes": Family(lambda profile: value_planes.SPECS, _value_planes),
    "attention_planes": Family(
        lambda profile: attention_planes.specs(attention_planes.EXACT),
        _attention_planes,
        lambda case: case[0],
    ),
    "attention_value": Family(lambda profile: attention_value.specs(), _attention_value),
    "batch_matmul": Family(
        lambda profile: batch_matmul.specs(),
        lambda spec, rng, n: batch_matmul.arguments(spec, rng, zeros=n % 2 == 1),
    ),
}


def sample(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """The first ``count`` examples of a strategy, the same on every call."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


def resized(case: Any, width: int) -> Any:
    """The case with features of that width, and as many tokens as ``MOST_WORK`` permits."""
    if isinstance(case, tuple):  # attention planes come with the scalars they are made for
        spec, scalars = case
        total = float(np.prod(scalars[: spec.factors].astype(np.float64)))
        return replace(resized(spec, width), spread=spread_of(width, total)), scalars
    names = ("q", "v", "rows", "a", "b")
    has_rows = {
        name: getattr(case, name)
        for name in names
        if name in case.__dataclass_fields__ and isinstance(getattr(case, name), Rows)
    }
    spec = case
    for scale in (1, 2, 4, 8, 16, 32, 64):
        changed = {
            name: replace(rows, width=width, tokens=max(1, rows.tokens // scale))
            for name, rows in has_rows.items()
        }
        if getattr(case, "thresholds", None) is not None:
            out = replace(case.thresholds.rows, tokens=changed["rows"].tokens)
            changed["thresholds"] = replace(case.thresholds, rows=out)
        spec = replace(case, **changed)
        if work(spec) <= MOST_WORK:
            break
    return spec


def work(spec: Any) -> float:
    """Elementary steps of the oracle, roughly."""
    fields = spec.__dataclass_fields__
    if "a" in fields:
        pairs = len(spec.a_kinds) * len(spec.b_kinds)
        return pairs * spec.a.batch * spec.a.tokens * spec.b.tokens * spec.a.features
    rows = spec.q if "q" in fields else spec.v if "v" in fields else spec.rows
    size = rows.batch * rows.tokens * rows.features
    if "columns" in fields:
        return size * spec.padded_columns
    if "rows" in fields:
        return 20 * size
    return size * rows.tokens * (1 if "q" in fields else spec.p_groups * spec.v_groups)


def widths(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Edges and random widths in turn."""
    for i in range(count):
        yield int(rng.integers(1, WIDEST + 1)) if i % 2 else EDGES[i // 2 % len(EDGES)]


def run_family(name: str, profile: Profile, cases: int, number: int = 0) -> Result:
    """Run at least ``cases`` cases of a family."""
    family, result = FAMILIES[name], Result()
    rng = np.random.default_rng([number, sorted(FAMILIES).index(name)])
    start = time.process_time()
    count = -(-cases // DRAWS)
    drawn = sample(family.cases(profile), count, number)
    for case, width in zip(drawn, widths(len(drawn), rng), strict=True):
        case = resized(case, width)
        _check(family, case, profile, rng, result)
    result.seconds = time.process_time() - start
    return result


def _check(
    family: Family, case: Any, profile: Profile, rng: np.random.Generator, result: Result
) -> None:
    """Compile one kernel and compare it on ``DRAWS`` sets of data."""
    spec = family.spec(case)
    cut = Cut(int(rng.choice(PARTS)), backwards=bool(rng.integers(2)))
    choices = family.space(spec, profile)
    choice = choices[int(rng.integers(2) * rng.integers(len(choices)))]
    main = compiled(cut(family.kernel(spec, profile, choice)), profile)["main"]
    result.kernels += 1
    for n in range(DRAWS):
        inputs = family.data(case, rng, n)
        result.cases += 1
        if names := [*differing(spec, main, inputs)]:
            result.wrong.append(f"draw {n}, {', '.join(names)}, {cut}, {choice}: {encode(spec)}")


def differing(spec: Any, main: Any, inputs: list[Array]) -> Iterator[str]:
    """Names of outputs that differ from the oracle's; padding tokens hold anything."""
    outputs = [np.full(shape, 0x5A, dtype) for _, shape, dtype in spec.outputs()]
    tensors = [tvm.runtime.tensor(array) for array in (*inputs, *outputs)]
    main(*tensors)
    expected = oracle.compute(spec, inputs)
    for (name, _, dtype), tensor, want in zip(
        spec.outputs(), tensors[len(inputs) :], expected, strict=True
    ):
        tokens = _tokens(spec) if dtype == "uint32" else None
        if not np.array_equal(tensor.numpy()[..., :tokens], want[..., :tokens]):
            yield name


def _tokens(spec: Any) -> int:
    """Tokens of a packed output."""
    if isinstance(spec, AttentionPlanes):
        return spec.q.tokens
    return spec.v.tokens if hasattr(spec, "v") else spec.rows.tokens


def run_level(level: str, cases: int, number: int = 0) -> Iterator[tuple[str, Result]]:
    """Results of the level's families, which share the cases."""
    profile = profile_of(target_of(level))
    names = [name for name, family in FAMILIES.items() if family.has(profile)]
    if level == AMX:
        names = ["dense"]
    if reason := obstacle(profile):
        raise SystemExit(f"{level}: {reason}.")
    for name in names:
        yield name, run_family(name, profile, -(-cases // len(names)), number)


def main() -> int:
    """Print a line for each family and the sum; 1 where there is a mismatch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    levels = (*LEVELS, AMX, *ARM)
    parser.add_argument("--level", choices=levels, action="append", help="default: all")
    parser.add_argument("--cases", type=int, default=CASES, help="for each level")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    wrong = 0
    for level in args.level or levels:
        total = Result()
        for name, result in run_level(level, args.cases, args.seed):
            _print(level, name, result)
            for line in result.wrong[:3]:
                print(f"  {line}")
            total.kernels += result.kernels
            total.cases += result.cases
            total.seconds += result.seconds
            total.wrong += result.wrong
        _print(level, "all", total)
        wrong += len(total.wrong)
    return 1 if wrong else 0


def _print(level: str, name: str, result: Result) -> None:
    print(
        f"{level:15} {name:17} {result.kernels:4} kernels {result.cases:5} cases "
        f"{len(result.wrong):4} mismatches {result.seconds:7.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
