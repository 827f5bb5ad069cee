import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import programs
from emulated import outcomes
from gsb_tvm.dialect.errors import ExitCode

needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-aarch64", "cmake", "aarch64-linux-gnu-g++"))),
    reason="qemu-user, cmake or a cross compiler is missing",
)


@pytest.mark.slow
@needs_tools
def test_demo_in_every_kind_of_program(tmp_path: Path, capsys) -> None:
    figures = tmp_path / "figures.json"
    command = ["--model", "demo", "--cpu", "cortex-a72", "--images", "1", "--json", str(figures)]
    assert programs.main(command) == ExitCode.OK
    found = json.loads(figures.read_text())["figures"]
    kinds = ["library", "example, 2 threads", "session, 1 thread", "session, 2 threads"]
    assert [each["program"] for each in found] == kinds
    assert all(each["exact"] == each["images"] == 1 for each in found)
    assert capsys.readouterr().out.count("cortex-a72") == len(kinds)


@needs_tools
def test_a_program_that_differs_fails(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def half_wrong(*_: object):
        yield "broken", lambda image: np.zeros(10, np.float32)

    monkeypatch.setattr(outcomes, "programs", half_wrong)
    command = ["--model", "demo", "--cpu", "cortex-a53", "--images", "1"]
    assert programs.main(command) == ExitCode.VERIFY
    assert "1 of 1 programs differ from this machine's artefact, by up to 1.0e+00" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("cpu", "said"),
    [
        ("haswell", "--cpu: haswell is x86_64, expected a CPU of 64-bit Arm."),
        ("cortex-a27", "cortex-a27"),
    ],
)
def test_a_cpu_that_is_not_arm_is_refused(cpu: str, said: str, capsys) -> None:
    command = ["--model", "demo", "--cpu", f"cortex-a72,{cpu}", "--images", "1"]
    assert programs.main(command) == ExitCode.USAGE
    assert said in capsys.readouterr().err
