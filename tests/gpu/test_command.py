"""The command where there is no GPU, and what it imports."""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from tests.gpu import prepare
from tests.gpu.cases import planned, planned_floats
from tests.gpu.folder import contents, cubin
from tests.gpu.running import ROOT

# Of the stages' own modules; PyTorch's part is imported by units, where there is PyTorch.
_IMPORTS = """
import sys
for name in ("tvm", "onnx", "onnxruntime", "scipy", "rich", "torch"):
    sys.modules[name] = None
import gsb_tvm
from tests.gpu import whole
from tests.gpu.stages import BY_NAME
for stage in BY_NAME.values():
    stage.load()
gsb_tvm.load_cuda
"""


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_stages_need_no_compiler():
    done = run("-c", _IMPORTS)
    assert done.returncode == 0, done.stderr


def test_other_packages_have_these_names_too(tmp_path: Path):
    """Wheels have been seen to install their tests under that name."""
    for name in ("tests", "benchmarks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    done = run("-m", "tests.gpu", "--help", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    done = run("-c", "import benchmarks.gpu.limits", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_without_a_gpu_each_stage_says_so(folder: Path, tmp_path: Path):
    found = tmp_path / "found.json"
    stages = ("kernels", "environment")
    chosen = [word for stage in stages for word in ("--only", stage)]
    done = run("-m", "tests.gpu", str(folder), "--json", str(found), *chosen)
    assert done.returncode == 6, done.stderr
    assert "FAILED opening" in done.stdout
    assert "a GPU is needed" in done.stdout
    environment, kernels = json.loads(found.read_text())
    assert (environment["name"], kernels["name"]) == ("environment", "kernels")
    verdicts = {row["name"]: row["verdict"] for row in environment["rows"]}
    assert verdicts["packages"] == "figure"
    assert verdicts["device"] == verdicts["graph"] == "failed"


def test_a_stage_that_does_not_exist(folder: Path):
    done = run("-m", "tests.gpu", str(folder), "--only", "nothing")
    assert done.returncode == 2
    assert 'there is no stage "nothing", only "environment"' in done.stderr


def test_a_folder_that_is_none(tmp_path: Path):
    done = run("-m", "tests.gpu", str(tmp_path))
    assert done.returncode == 2
    assert "Make the folder again with python -m tests.gpu.prepare FOLDER." in done.stderr


@pytest.mark.slow
def test_prepare(tmp_path: Path, capsys, monkeypatch):
    """The whole folder, but for most of the kernels."""
    monkeypatch.setattr(prepare, "planned", lambda profile: islice(planned(profile), 1))
    monkeypatch.setattr(prepare, "planned_floats", lambda: islice(planned_floats(), 1))
    assert prepare.main([str(tmp_path)]) == 0
    found = contents(tmp_path)
    assert [model.name for model in found.models] == ["demo"]
    assert all(cubin(tmp_path, case).read_bytes()[:4] == b"\x7fELF" for case in found.cases)
    assert "2 kernels, 1 models" in capsys.readouterr().out
    assert not list(tmp_path.glob("*-cpu*"))
