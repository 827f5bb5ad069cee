"""Instructions of a model of ours: a C library in a static program."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from shutil import copyfile

import msgspec
import numpy as np

from counting import plugin
from counting.plugin import Block, Section
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.runtime.c_library import MARKER
from gsb_tvm.runtime.link import link_program
from gsb_tvm.runtime.metadata import Metadata, Program
from gsb_tvm.runtime.verify import draw
from gsb_tvm.targets import Profile

NAME = "model"
"""Of the C library that is counted."""

_SOURCE = Path(__file__).with_name("model.c")


@dataclass(frozen=True)
class Counted:
    """One call of a model.

    Attributes
    ----------
    file
        The executable.
    whole
        As programs make it.
    timed
        With a clock between its steps. LLVM may compile a kernel anew for it, so steps add up to
        the whole only within a few tenths of a per cent.
    """

    program: Program
    file: Path
    whole: Section
    timed: Section

    @property
    def steps(self) -> list[int]:
        """Instructions of each step, with the clock's own, a handful."""
        return [after - before for before, after in pairwise(self.timed.ticks)]

    @property
    def step_blocks(self) -> list[tuple[Block, ...]]:
        """Code that ran in each step."""
        return list(self.timed.spans[1:-1])


def counted(model: Path, profile: Profile, cpu: str, folder: Path) -> Counted:
    """Compile ``model`` and count one call on a seeded image; files stay in ``folder``.

    Raises
    ------
    GsbError
        It cannot be compiled, linked or run.
    """
    library = folder / "library"
    compile_model(model, profile, Options(library, verify=False, c_library=NAME))
    rng = np.random.default_rng(1)
    return call(library, profile, cpu, [draw(each, rng) for each in _read(library).inputs], folder)


def call(
    library: Path, profile: Profile, cpu: str, arrays: Sequence[np.ndarray], folder: Path
) -> Counted:
    """Count one call of a C library called ``NAME``."""
    program = _read(library)
    file = _linked(library, program, profile, folder)
    images = folder / "images"
    images.write_bytes(b"".join(array.tobytes() for array in arrays))
    whole, timed = plugin.count(cpu, [str(file), str(images)], folder)
    return Counted(program, file, whole, timed)


def _read(library: Path) -> Program:
    return msgspec.json.decode((library / MARKER).read_bytes(), type=Metadata).program


def _linked(library: Path, program: Program, profile: Profile, folder: Path) -> Path:
    inputs, outputs = len(program.inputs), len(program.outputs)
    given = [*(f"in[{i}]" for i in range(inputs)), *(f"out[{i}]" for i in range(outputs))]
    shape = {
        "INPUTS": inputs,
        "OUTPUTS": outputs,
        "STEPS": len(program.steps),
        "TYPES": ", ".join(["const void*"] * inputs + ["void*"] * outputs),
        "CALL": ", ".join(given),
    }
    text = "".join(f"#define {name} {value}\n" for name, value in shape.items())
    (folder / "shape.h").write_text(text)
    copyfile(library / "include" / f"{NAME}.h", folder / f"{NAME}.h")
    main, out = folder / "main.c", folder / "program"
    copyfile(_SOURCE, main)
    link_program(profile, [main, library / "lib" / f"lib{NAME}.a"], out, folder)
    return out
