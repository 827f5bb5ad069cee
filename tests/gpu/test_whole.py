"""All stages in turn: what runs beside what, what is told, what is written."""

import json
import threading
from pathlib import Path

import pytest

from benchmarks.gpu.timing import Figures
from tests.gpu import whole
from tests.gpu.rows import Row, StageResult
from tests.gpu.stages import BESIDE, OPPOSED, STAGES
from tests.gpu.timed_models import CALLED, OURS, compared_rows


@pytest.fixture
def played(monkeypatch):
    """Stages that end at once, the one beside them when it is let."""
    ended: list[str] = []
    let = threading.Event()

    def run_stage(_folder, stage, seconds):
        if stage is BESIDE:
            assert let.wait(60)
        elif stage.name == "models":
            let.set()
        assert seconds <= stage.limit_s
        ended.append(stage.name)
        verdict = "failed" if stage.name == "models" else "ok"
        return StageResult(stage.name, 0.5, (Row(stage.name, verdict),))

    monkeypatch.setattr(whole.running, "run_stage", run_stage)
    return ended


def test_nothing_runs_beside_what_is_timed(played, folder: Path, tmp_path: Path, capsys):
    found = tmp_path / "found.json"
    assert whole.run_all(folder, None, 100, found) == 1
    first_timed = next(stage.name for stage in STAGES if stage.is_timed)
    assert played.index(BESIDE.name) < played.index(first_timed)
    assert [name for name in played if name != BESIDE.name] == [stage.name for stage in STAGES]
    assert sorted(stage["name"] for stage in json.loads(found.read_text())) == sorted(played)
    told = capsys.readouterr().out
    assert "FAILED models" in told
    assert f"{len(STAGES)} ok, 1 failed, 0 skipped" in told


def test_opponents_are_compiled_for_the_comparison_alone(played, folder: Path):
    whole.run_all(folder, ["environment", "limits"], 100, None)
    assert played == ["environment", "limits"]
    assert OPPOSED.is_timed


def test_times_of_others_over_ours():
    found = {OURS: Figures(1e-3, 0.9e-3, 1.1e-3), CALLED: Figures(2e-3, 2e-3, 2e-3)}
    ours, called = compared_rows(found, 64)
    assert ours.name == "batch 64, ours"
    assert ours.figures == {
        "ms": 1.0,
        "low_ms": 0.9,
        "high_ms": 1.1,
        "images/s": 64000.0,
        "times_ours": 1.0,
    }
    assert called.figures["times_ours"] == 2.0
