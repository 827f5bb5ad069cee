"""A model by rule and by records, in turn, in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gsb_tvm.driver import compile_model
from gsb_tvm.options import Options
from gsb_tvm.runtime.session import Module, load
from gsb_tvm.targets import Profile
from measuring.machine import held, preferred
from measuring.rounds import Rounds
from measuring.samples import Figures, figures, timed

_MOST = 200  # runs of one of them in a round


def compiled(model: Path, profile: Profile, records: Path, folder: Path) -> dict[str, Module]:
    """The model by rule and by records, loaded for one thread."""
    options = {
        "rule": Options(folder / "rule.so", verify=False, by_rule=True),
        "records": Options(folder / "records.so", verify=False, records=records),
    }
    for each in options.values():
        compile_model(model, profile, each)
    return {name: load(each.out, 1) for name, each in options.items()}


def measure(modules: Mapping[str, Module], rounds: Rounds) -> dict[str, Figures]:
    """Figures of each; whether outputs agree is the business of ``gsb-tvm verify``."""
    rng = np.random.default_rng(1)
    shapes = [tensor.shape for tensor in next(iter(modules.values())).metadata.program.inputs]
    inputs = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    samples: dict[str, list[Sequence[float]]] = {name: [[], []] for name in modules}
    for _ in range(rounds.count):
        for name, module in modules.items():
            with held(rounds.lock), preferred(rounds.priority):
                module(*inputs)
                found = timed(lambda m=module: m(*inputs), rounds.seconds, _MOST)
            samples[name] = [old + new for old, new in zip(samples[name], found, strict=True)]
    return {name: figures(*each) for name, each in samples.items()}
