"""``gsb-tvm tune`` for a GPU that is emulated, ``compile`` by its records, and what goes wrong."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gsb_tvm import extraction
from gsb_tvm.cli import main
from gsb_tvm.extraction import tasks
from gsb_tvm.runtime.metadata import parse
from gsb_tvm.schedules.choices import text_of
from gsb_tvm.schedules.records import Record, append, load
from gsb_tvm.schedules.standings import PROVEN
from gsb_tvm.targets import resolve
from gsb_tvm.tuning.tasks import Task
from tests import tiny_models as tiny
from tests.commandline import CommandLine, refused
from tests.libcuda.process import call
from tests.tiny_models import save
from tests.tuning.emulated import Known

TARGET = ("--target", "cuda", "-arch=sm_90")
SM_90 = resolve("cuda -arch=sm_90")
CHOICES = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path, tiny.binary_linear())
    return tmp_path


def compiled(folder: Path, *words: str) -> dict[str, str]:
    """What records chose of each kernel of the compiled model."""
    arguments = [str(folder / "m.onnx"), *TARGET, "-o", str(folder / "out.so"), "--no-verify"]
    assert main(["compile", *arguments, "--json", *words]) == 0
    return dict(parse((folder / "out.so").read_bytes(), "out.so").program.tuned)


def tunes(folder: str, trials: str) -> None:
    """Tune the model as the command does, but few choices of kernels that the stand-in knows."""

    def known(*arguments: Any) -> list[Task]:
        return [
            replace(t, workload=Known(t.workload, Path(folder), CHOICES), space=t.space[:CHOICES])
            for t in tasks(*arguments)
        ]

    words = ["--trials", trials, "--records", f"{folder}/r.txt"]
    with mock.patch.object(extraction, "tasks", known):
        assert main(["tune", f"{folder}/m.onnx", *TARGET, *words]) == 0


def test_a_model_is_tuned_and_compiled(folder: Path) -> None:
    found = tasks(folder / "m.onnx", None, SM_90)
    trials = len(found) + 2
    said = call(tunes, folder, trials, kernels=folder)
    assert f"{trials}, {trials} of them new; 0 failed" in said
    assert "of limit" not in said
    loaded = load(folder / "r.txt").records
    assert {record.key for record in loaded} == {task.key for task in found}
    assert {(r.cpu, r.host) for r in loaded} == {
        ("sm_90", "Stand-in GPU (sm_90, 132 multiprocessors)")
    }
    words = ["--records", str(folder / "r.txt")]
    assert len(compiled(folder, *words)) == len(found)
    first = (folder / "out.so").read_bytes()
    compiled(folder, *words)
    assert (folder / "out.so").read_bytes() == first


def record(task: Task, place: int) -> Record:
    """That a choice takes half the rule's time."""
    key = task.key
    return Record(
        kernel=key.kernel,
        schedule=key.schedule,
        features=key.features,
        cpu=key.cpu,
        choice=dict(task.space[place]),
        seconds=(1e-6,),
        rule=(2e-6,),
    )


def test_records_choose_and_the_artefact_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tasks(folder / "m.onnx", None, SM_90)
    append(folder / "r.txt", [record(task, -1) for task in found] * PROVEN)
    chosen = compiled(folder, "--records", str(folder / "r.txt"))
    assert sorted(chosen.values()) == sorted(text_of(task.space[-1]) for task in found)
    assert len(json.loads(capsys.readouterr().out)["tuned"]["rows"]) == len(found)
    by_records = (folder / "out.so").read_bytes()
    assert compiled(folder, "--by-rule") == {}
    assert (folder / "out.so").read_bytes() != by_records
    words = ["-o", str(folder / "out.so"), "--no-verify", "--records", str(folder / "r.txt")]
    capsys.readouterr()
    assert main(["compile", str(folder / "m.onnx"), *TARGET, *words]) == 0
    assert f"{len(found)} of {len(found)} kernels by records" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["cuda -arch=sm_89", "native"])
def test_records_serve_no_other_architecture(target: str, folder: Path) -> None:
    found = tasks(folder / "m.onnx", None, resolve(target))
    append(folder / "r.txt", [record(task, -1) for task in found] * PROVEN)
    assert compiled(folder, "--records", str(folder / "r.txt")) == {}


def test_records_do_not_ask_for_the_cpu_beside_the_gpu(folder: Path) -> None:
    arm = resolve("cuda -arch=sm_90 -mtriple=aarch64-linux-gnu")
    keys = [[task.key for task in tasks(folder / "m.onnx", None, p)] for p in (arm, SM_90)]
    assert keys[0] == keys[1]


def test_without_a_gpu(gsb: CommandLine, folder: Path) -> None:
    hidden = "import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''"
    done = gsb(folder, "tune", "m.onnx", *TARGET, patch=hidden)
    refused(done, 2, "a GPU is needed, and", "--tracker HOST:PORT")
