import pytest

from comparison.jobs import Verified
from comparison.picture import draw
from comparison.rows import Cell, Row
from comparison.table import outputs, table
from gsb_tvm.dialect.errors import ToolchainError
from measuring.arguments import check_outputs
from measuring.samples import Figures

OURS = Row(
    "ours",
    "gsb_tvm, GSB",
    figures=Figures(4.0, 3.9, 4.2, 3.8, 40, 38),
    ratio=1.0,
    size_mb=16.0,
    rss_mb=72.0,
    cold_s=(0.3, 0.1, 0.2),
    prepare_s=10.0,
    verified=Verified("ok", 8, 0, 8, ""),
)
OTHER = Row(
    "ort-fp32",
    "ONNX Runtime, float",
    figures=Figures(48.0, 47.0, 49.0, 46.0, 9, 2),
    ratio=12.0,
    size_mb=90.0,
    rss_mb=226.0,
    prepare_s=0.0,
    difference=0.0,
)
ABSENT = Row("ov-fp32", "OpenVINO, float", "openvino not installed")
CELLS = [Cell(batch, 1, "native", "native", (OURS, OTHER, ABSENT)) for batch in (1, 8)]


def test_bars_with_ratios(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "figures.svg"
    draw(CELLS, "a network on a machine", path)
    first = path.read_bytes()
    assert first.count(b"12.0x") == len(CELLS)
    draw(CELLS, "a network on a machine", path)
    assert path.read_bytes() == first


def test_table_tells_medians_and_reasons():
    columns = {str(column.header): list(column.cells) for column in table(CELLS[1]).columns}
    assert columns["ms"] == ["4.00", "48.0", "–"]
    assert columns["an image"] == ["0.500", "6.00", "–"]
    assert columns["cold s"] == ["0.20", "–", "–"]
    assert columns["quiet"] == ["38/40", "2/9", "–"]
    assert [str(remark) for remark in columns["remarks"]][-1] == "not run: openvino not installed"
    assert [outputs(row) for row in CELLS[0].rows] == ["8 of 8 exact", "0.0e+00", "–"]


def test_picture_without_matplotlib_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("measuring.arguments.importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ToolchainError, match=r"matplotlib is not installed, which --plot needs"):
        check_outputs(None, tmp_path / "figures.png")
