"""The small kernels for a GPU, emulated: what they are checked on there is right, and they pass."""

from types import SimpleNamespace

import msgspec
import pytest

from gsb_tvm.targets import resolve
from tests.gpu import compiling
from tests.gpu.cases import planned, planned_floats
from tests.gpu.drawing import samples
from tests.gpu.folder import Case
from tests.gpu.kernel_checks import checking
from tests.gpu.rows import Row
from tests.runtime.emulated_gpu import EmulatedGpu, emulated

ARCH = "sm_90"
SMALL = {
    each.name: each
    for each in (*planned(resolve(f"cuda -arch={ARCH}")), *planned_floats())
    if getattr(each, "is_small", True)
}
QUICK = ("patches-33.0", "dense-33.0", "float-softmax-198.0")


def test_what_is_planned_can_be_read():
    for each in planned(resolve(f"cuda -arch={ARCH}")):
        case = Case(name=each.name, choice=each.choice, launches=(), scratch_bytes=0, state_bytes=0)
        assert msgspec.json.decode(msgspec.json.encode(case), type=Case) == case


class SourceGpu(EmulatedGpu):
    """Loads source in the place of machine code."""

    def load(self, image):
        return emulated(image.decode())


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SMALL]
)
def test_passes(name, tmp_path, monkeypatch):
    monkeypatch.setattr(
        compiling, "compile_source", lambda source, _arch: SimpleNamespace(cubin=source.encode())
    )
    (tmp_path / "kernels").mkdir()
    case = compiling.kernel(tmp_path, SMALL[name], ARCH)
    check = checking(tmp_path, {case.name: case}, SourceGpu(), samples)
    assert list(check(name)) == [Row(name, "ok")]


def test_names_are_files_names_and_each_its_own():
    every = [*planned(resolve(f"cuda -arch={ARCH}")), *planned_floats()]
    names = [each.name for each in every]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for name in names)
