"""Kernels of a folder, compiled one by one."""

import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tvm.ir import load_json

from gsb_tvm.dialect.specs import encode
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.cuda.launches import Argument, Kernel, lower
from gsb_tvm.runtime.cuda.nvrtc import compile_source
from gsb_tvm.runtime.outfile import write_file
from gsb_tvm.schedules import families
from gsb_tvm.schedules.float import schedule
from gsb_tvm.targets import Profile, resolve
from gsb_tvm.tuning.workloads import Float
from tests.gpu import folder as layout
from tests.gpu.cases import Planned, PlannedFloat


def kernels(
    folder: Path, wanted: Iterable[Planned | PlannedFloat], arch: str, jobs: int
) -> list[layout.Case]:
    """Compile kernels into the folder, several at once."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        made = [pool.submit(kernel, folder, each, arch) for each in wanted]
        return [each.result() for each in made]


def kernel(folder: Path, wanted: Planned | PlannedFloat, arch: str) -> layout.Case:
    """Compile one kernel into the folder."""
    profile = resolve(f"cuda -arch={arch}")
    if isinstance(wanted, PlannedFloat):
        return _float(folder, wanted, profile)
    func = families.kernel(wanted.spec, profile, wanted.choice)
    return _written(
        folder,
        func,
        profile,
        name=wanted.name,
        spec=encode(wanted.spec),
        drawn=encode(wanted.drawn),
        choice=wanted.choice,
        is_rule=wanted.is_rule,
        is_small=wanted.is_small,
    )


def _float(folder: Path, wanted: PlannedFloat, profile: Profile) -> layout.Case:
    """A float operator, and beside it what the unscheduled PrimFunc makes of random inputs."""
    func = schedule(load_json(wanted.source), profile)
    rng = np.random.default_rng(0)
    sample = Float("", wanted.source).sample(profile, {}, rng, zeros=False)
    case = _written(
        folder, func, profile, name=wanted.name, tolerance=sample.tolerance, edges=sample.edges
    )
    write_file(
        layout.stored(folder, case),
        packed_arrays({"input": sample.inputs, "output": sample.outputs}),
    )
    return case


def _written(folder: Path, func: Any, profile: Profile, **described: Any) -> layout.Case:
    assert profile.gpu is not None
    lowered = lower({"kernel": func}, profile)
    made = lowered.kernels["kernel"]
    case = layout.Case(
        launches=tuple(_launches(made)),
        scratch_bytes=made.scratch_bytes,
        state_bytes=made.state_bytes,
        **described,
    )
    write_file(layout.cubin(folder, case), compile_source(lowered.source, profile.gpu.arch).cubin)
    return case


def _launches(made: Kernel) -> Iterable[meta.Launch]:
    def place(argument: Argument) -> meta.Place:
        if argument.kind == "tensor":
            return meta.Place("input", argument.at)
        first = made.scratch_bytes if argument.kind == "state" else 0
        return meta.Place("memory", first + argument.at)

    for launch in made.launches:
        arguments = tuple(map(place, launch.arguments))
        yield meta.Launch(launch.function, launch.grid, launch.block, arguments, (0,))


def packed_arrays(named: Mapping[str, Iterable[np.ndarray]]) -> bytes:
    """Arrays as an npz file: "input0", "input1" and so on."""
    file = io.BytesIO()
    arrays = {f"{name}{i}": a for name, group in named.items() for i, a in enumerate(group)}
    np.savez_compressed(file, **arrays)
    return file.getvalue()
