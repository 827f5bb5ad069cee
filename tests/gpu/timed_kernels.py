"""The rule's choice of each kernel of DeiT-Small against others, and its share of the limits."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.gpu.events import Clock
from benchmarks.gpu.limits import Rate, share
from benchmarks.gpu.timing import Figures, compared
from gsb_tvm.dialect import work
from gsb_tvm.dialect.specs import decode
from gsb_tvm.runtime.cuda.driver import CudaDevice, Device
from gsb_tvm.tuning.samples import Sample
from tests.gpu.checks import Bench
from tests.gpu.drawing import samples_of
from tests.gpu.folder import Case, contents, cubin
from tests.gpu.kernel_checks import Draw, drawn_aside
from tests.gpu.rows import Row
from tests.gpu.stages import Check
from tests.gpu.timed_limits import limits_of, rates

_ROUNDS, _SECONDS = 9, 0.004
_REPEATED = 20  # launches of a graph: more than the host's part of a launch


def units(folder: Path) -> list[str]:
    """Each operator and batch."""
    return list(_grouped(folder))


def _grouped(folder: Path) -> dict[str, list[Case]]:
    """Cases that compute the same, the rule's first."""
    found: dict[str, list[Case]] = {}
    for case in contents(folder).cases:
        if not case.is_small:
            found.setdefault(case.name.rpartition(".")[0], []).append(case)
    return found


def opened(folder: Path, wanted: Sequence[str]) -> Check:
    """The GPU, and the limits as they are now."""
    groups = _grouped(folder)
    draw = drawn_aside([groups[name][0] for name in wanted])
    device = CudaDevice(0)
    clock = Clock(device)
    held_against = rates(limits_of(folder, device), device, clock)

    def check(name: str) -> Iterator[Row]:
        yield _row(
            name, groups[name], _timed(folder, groups[name], device, clock, draw), held_against
        )

    return check


def _timed(
    folder: Path, cases: Sequence[Case], device: Device, clock: Clock, draw: Draw
) -> dict[str, Figures]:
    """Seconds of one call of each case, inputs in the caches as far as they fit."""
    sample: Sample = samples_of(folder, cases[0], lambda text: draw(text)[:1])[0]
    with ExitStack() as stack:
        runs = {}
        for case in cases:
            module = device.load(cubin(folder, case).read_bytes())
            functions = {each: device.function(module, each) for each in case.functions}
            bench = stack.enter_context(Bench(device, case, functions, sample))
            graph = device.graph(bench.nodes * _REPEATED)
            runs[case.name] = lambda graph=graph: device.run_graph(graph, clock.stream)
        found = compared(clock, runs, rounds=_ROUNDS, seconds=_SECONDS)
    return {
        name: Figures(*(each / _REPEATED for each in (f.median, f.low, f.high)))
        for name, f in found.items()
    }


def _row(
    name: str, cases: Sequence[Case], found: Mapping[str, Figures], limits: Mapping[str, Rate]
) -> Row:
    rule = found[cases[0].name].median
    best = min(cases, key=lambda case: found[case.name].median)
    spec = decode(cases[0].spec)
    figures: dict[str, float | int | str] = {
        "rule_us": rule * 1e6,
        "best_us": found[best.name].median * 1e6,
        **shares(rule, work.macs(spec), work.bytes_touched(spec), limits),
    }
    chosen = " ".join(f"{key}={value}" for key, value in best.choice.items())
    others = " ".join(f"{found[case.name].median * 1e6:.2f}" for case in cases)
    return Row(name, "figure", f"best {chosen}; all in us {others}", figures)


def shares(
    seconds: float, macs: int | None, size: int | None, limits: Mapping[str, Rate]
) -> dict[str, float]:
    """Of the limits of bits multiplied and of memory read; none of what is not known."""
    found = {}
    if macs:
        found["b1_share"] = share(macs, seconds, limits["b1_mma"].per_second)
    if size:
        found["memory_share"] = share(size, seconds, limits["memory_read"].per_second)
    return found
