"""A small folder of ``tests.gpu.prepare``, and a GPU that runs its kernels on this CPU."""

from pathlib import Path

import msgspec
import pytest

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Kind, ValuePlanes
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.schedules import families
from gsb_tvm.targets import resolve
from tests.gpu import compiling
from tests.gpu.cases import Planned, planned_floats
from tests.gpu.folder import CONTENTS, LIMITS, Case, Contents
from tests.gpu.widening import times
from tests.libcuda.emulations import emulating
from tests.runtime.emulated_gpu import EmulatedGpu
from tests.schedules.cuda.kernels import lowered

ARCH = "sm_90"
SM_90 = resolve(f"cuda -arch={ARCH}")
SPEC = ValuePlanes(Rows(2, 21, 3, 40), Kind.MASKED, True, (0.7, 0.9))
"""Two launches, scratch and state."""


NOTHING = 'extern "C" __global__ void nothing(int*) {}'
"""In the place of the loops, which only a GPU executes."""


@pytest.fixture(scope="session")
def emulations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stand-in for NVIDIA's driver finds what code of ``folder`` does."""
    return tmp_path_factory.mktemp("emulations")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, emulations: Path) -> Path:
    """A packed kernel, for three times as many images as are drawn, and a float one."""
    made = tmp_path_factory.mktemp("gpu")
    (made / "kernels").mkdir()
    wide = times(SPEC, 3)
    wanted = Planned("values.0", SPEC, wide, families.rule(wide, SM_90), True, True)
    floats = next(each for each in planned_floats() if "layer-norm" in each.name)
    with emulating(emulations, compiling):
        cases = tuple(compiling.kernel(made, each, ARCH) for each in (wanted, floats))
        (made / LIMITS).write_bytes(compiling.compile_source(NOTHING, ARCH).cubin)
    found = Contents(arch=ARCH, versions=meta.versions(), cases=cases, models=())
    (made / CONTENTS).write_bytes(msgspec.json.encode(found))
    return made


@pytest.fixture(scope="session")
def case(folder: Path) -> Case:
    """The packed kernel."""
    return msgspec.json.decode((folder / CONTENTS).read_bytes(), type=Contents).cases[0]


@pytest.fixture
def gpu() -> EmulatedGpu:
    """A GPU on which the kernel, and no other, can be loaded."""
    return EmulatedGpu(lowered(families.kernel(times(SPEC, 3), SM_90)).source)
