"""The demo's training command, cut short: it writes a matching pair, twice the same."""

import hashlib
import json
from pathlib import Path

import pytest

from gsb_tvm.models import demo_training
from gsb_tvm.models.datasets import Dataset, digits
from gsb_tvm.models.demo_training import DEMO_CONFIG, DEMO_RECIPE
from gsb_tvm.models.train import main

pytest.importorskip("sklearn")


def test_the_command_writes_the_same_pair_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Dataset(*(part[:64] for part in digits()))
    monkeypatch.setattr(demo_training, "digits", lambda: few)
    records = []
    for name in ("one", "two"):
        folder = tmp_path / name
        assert main(["demo", "--out", str(folder), "--seed", "7", "--epochs", "1", "0", "1"]) == 0
        record = json.loads((folder / "gsb_digits.json").read_text())
        content = (folder / "gsb_digits.onnx").read_bytes()
        assert record["sha256"] == hashlib.sha256(content).hexdigest()
        records.append(record)
    assert records[0] == records[1]
    assert records[0]["command"] == ("python -m gsb_tvm.models.train demo --seed 7 --epochs 1 0 1")
    assert set(records[0]["accuracy"]) == {"teacher", "stage1", "student", "student_one_group"}
    assert records[0]["config"]["width"] == DEMO_CONFIG.width
    assert records[0]["recipe"]["batch"] == DEMO_RECIPE.batch
    assert capsys.readouterr().out.splitlines()[-1].endswith("bytes")


def test_a_folder_that_cannot_be_written_is_named_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["demo", "--out", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"error: {file}: cannot write there (File exists). Choose another folder with --out.\n"
    )
