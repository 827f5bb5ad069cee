import json
from pathlib import Path

import numpy as np
import pytest

import compare
from comparison import engines, isa
from comparison.jobs import Verified
from comparison.models import _fixed, input_shape
from comparison.process import environment
from comparison.rows import Cell, Row
from comparison.table import milliseconds, outputs
from comparison.worker import reason_of
from gsb_tvm.models import demo

DEMO = Path(demo.__file__).with_name("gsb_digits.onnx")
QUICK = ("--rounds", "1", "--seconds", "0", "--cold", "0")


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """The demo model beside ONNX Runtime; everything else is asked for and cannot run."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else name)
        code = compare.main(
            ["--model", str(DEMO), *QUICK, "--cold", "1", "--json", str(folder / "figures.json")]
        )
    return code, json.loads((folder / "figures.json").read_text())


def rows_of(figures):
    (cell,) = figures["figures"]["cells"]
    return {row["engine"]: row for row in cell["rows"]}


def test_every_engine_has_a_row_with_figures_or_a_reason(figures):
    code, found = figures
    rows = rows_of(found)
    assert code == 0
    assert list(rows) == [each.name for each in engines.ENGINES]
    assert all(bool(row["figures"]) != bool(row["not_run"]) for row in rows.values())
    assert {name for name, row in rows.items() if row["figures"]} == {"ours", "ort-gsb"}
    assert found["versions"]["numpy"] == np.__version__


def test_figures_of_ours(figures):
    row = rows_of(figures[1])["ours"]
    assert row["ratio"] == 1
    assert row["verified"]["verdict"] == "ok"
    assert row["figures"]["best_ms"] <= row["figures"]["median_ms"] <= row["figures"]["high_ms"]
    assert row["size_mb"] > 0
    assert row["rss_mb"] > 0
    assert len(row["cold_s"]) == 1


def test_missing_package_and_missing_model_are_told(figures):
    rows = rows_of(figures[1])
    assert rows["ov-fp32"]["not_run"] == "openvino not installed"
    assert rows["torch"]["not_run"] == "no float model was given"


def test_failure_of_an_engine_is_its_remark(tmp_path, capsys):
    code = compare.main(
        ["--float-model", str(DEMO), *QUICK, "--engines", "torch,ort-fp32", "--work", str(tmp_path)]
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert "not run: it needs the network in PyTorch" in " ".join(printed.split())
    assert "ONNX Runtime, float" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch", "0"], "not a list of numbers of at least 1"),
        (["--batch", "x"], "not a list of numbers"),
        (["--engines", "ours,tensorrt"], 'there is no engine "tensorrt"'),
        (["--threads", "4096"], "4096 threads need as many cores"),
        (["--cores", "4096"], "there is no core 4096"),
        (["--preset", "mini", "--model", str(DEMO)], "exclude each other"),
        (["--model", "absent.onnx"], "absent.onnx: there is no such file"),
        (["--plot", "figures.bmp"], "expected a name that ends in"),
        (["--json", "absent/figures.json"], "its folder cannot be written to"),
        (["--target", "llvm -mcpu=cortex-a72"], "this machine"),
        (["--isa", "avx2", "--target", "native"], "not allowed with"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, sentence, capsys):
    assert compare.main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert sentence in printed


def test_batch_of_a_file_is_kept(tmp_path, capsys):
    assert compare.main(["--model", str(DEMO), "--batch", "8", "--work", str(tmp_path)]) == 2
    assert "its batch is fixed to 1, but --batch asks for 8" in capsys.readouterr().err


def test_failed_verification_ends_in_its_exit_code():
    failed = Row("ours", "", verified=Verified("failed", 0, 1, 8, ""))
    assert compare.is_wrong(Cell(1, 1, "native", "native", (failed,)))
    assert outputs(failed) == "FAILED, 0 of 8 exact"
    fine = Row("ours", "", verified=Verified("ok", 7, 1, 8, ""))
    assert not compare.is_wrong(Cell(1, 1, "native", "native", (fine,)))
    assert outputs(fine) == "7 of 8 exact"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0359, "0.036"), (3.894, "3.89"), (48.27, "48.3"), (5412.3, "5412")]
)
def test_milliseconds_have_three_digits(value, text):
    assert milliseconds(value) == text


def test_instruction_set_reaches_the_opponents(job):
    held = environment(job(isa="avx2"))
    assert held["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert held["ATEN_CPU_CAPABILITY"] == "avx2"
    assert held["TVM_NUM_THREADS"] == "2"
    assert isa.settings("native") == {}
    assert isa.remark("avx512", "onnx_runtime") == "not held: uses all the CPU has"
    assert isa.remark("native", "onnx_runtime") == ""


def test_reason_is_the_cause_in_one_line():
    wrapped = RuntimeError("Exception from core.cpp\nplugin.cpp\nno such layer: Softmax\n\n")
    assert reason_of(wrapped) == "Exception from core.cpp … no such layer: Softmax"
    assert reason_of(ValueError("no such layer")) == "no such layer"
    assert reason_of(KeyError()) == "KeyError"


def test_open_batch_is_closed(tmp_path):
    import onnx

    model = onnx.load(DEMO)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "open.onnx")
    closed = _fixed(tmp_path / "open.onnx", 4, tmp_path)
    assert input_shape(closed)[0] == 4
