"""Stages in their processes: what ends one is told, and the rest goes on."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpu import rows, running, whole
from tests.gpu.rows import Begun, Ended, Found, Row, StageResult
from tests.gpu.stages import STAGES, Stage

PLAY = """
import ctypes, os, time
from tests.gpu.rows import Row

def units(folder):
    return (folder / "units").read_text().split()

def opened(folder, wanted):
    if (folder / "closed").exists():
        raise RuntimeError("no GPU")
    def check(unit):
        if unit == "crash":
            ctypes.string_at(0)
        if unit == "hang":
            time.sleep(60)
        if unit == "sticky":
            raise RuntimeError("CUDA driver: CUDA_ERROR_ILLEGAL_ADDRESS")
        if unit == "half":
            yield Row("first half", "ok")
            ctypes.string_at(0)
        if unit == "bug":
            raise ValueError("mine")
        yield Row(unit, "ok", str(os.getpid()))
    return check
"""


@pytest.fixture
def play(tmp_path, monkeypatch) -> Iterator[Stage]:
    """A stage whose units do what their names say."""
    package = tmp_path / "played"
    package.mkdir()
    (package / "stage_of_tests.py").write_text(PLAY)
    registry = package / "sitecustomize.py"
    registry.write_text(
        "from tests.gpu import stages\n"
        "stages.BY_NAME['play'] = stages.Stage('play', 'stage_of_tests', 30, 8)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{package}:{running.ROOT}")
    monkeypatch.syspath_prepend(str(package))
    sys.modules.pop("stage_of_tests", None)
    yield Stage("play", "stage_of_tests", 30, 8)
    sys.modules.pop("stage_of_tests", None)


def verdicts(result: StageResult) -> dict[str, str]:
    return {row.name: row.verdict for row in result.rows}


def test_whatever_ends_a_process_the_rest_goes_on(tmp_path: Path, play):
    (tmp_path / "units").write_text("one crash two sticky bug half three")
    result = running.run_stage(tmp_path, play, 60)
    assert verdicts(result) == {
        "one": "ok",
        "crash": "failed",
        "two": "ok",
        "sticky": "failed",
        "bug": "failed",
        "first half": "ok",
        "half": "failed",
        "three": "ok",
    }
    text = {row.name: row.text for row in result.rows}
    assert "ended with -11" in text["crash"]
    assert "ILLEGAL_ADDRESS" in text["sticky"]
    assert "ValueError: mine" in text["bug"]
    assert len({text["one"], text["two"], text["three"]}) == 3, "a process was used again"


def test_what_hangs_is_ended_alone(tmp_path: Path, play):
    (tmp_path / "units").write_text("hang after")
    result = running.run_stage(tmp_path, play, 60)
    assert verdicts(result) == {"hang": "failed", "after": "ok"}
    assert "took more than 8 s" in result.rows[0].text


def test_where_the_time_is_over_the_rest_is_skipped(tmp_path: Path, play):
    (tmp_path / "units").write_text("one hang after")
    result = running.run_stage(tmp_path, play, 3.5)
    assert verdicts(result)["after"] == "skipped"
    assert result.count("failed") <= 1


def test_what_does_not_open_is_not_tried_again(tmp_path: Path, play):
    (tmp_path / "units").write_text("one two")
    (tmp_path / "closed").touch()
    result = running.run_stage(tmp_path, play, 30)
    assert verdicts(result) == {"opening": "failed", "one": "skipped", "two": "skipped"}
    assert "no GPU" in result.rows[0].text


def test_a_line_that_was_cut(tmp_path: Path):
    path = tmp_path / "rows"
    rows.append(path, Begun("one"))
    rows.append(path, Found(Row("one", "ok")))
    rows.append(path, Ended("one"))
    rows.append(path, Begun("two"))
    whole_file = path.read_bytes()
    for end in range(len(whole_file) - 3, len(whole_file)):
        path.write_bytes(whole_file[:end])
        found, cut = rows.read(path)
        assert found == [Row("one", "ok")]
        assert cut in ("", "two")


def test_what_is_told():
    result = StageResult(
        "stage",
        1.25,
        (
            Row("a", "ok"),
            Row("b", "ok"),
            Row("c", "failed", "wrong"),
            Row("d", "figure", "", {"us": 1.23456, "count": 3}),
        ),
    )
    assert whole.told(result) == (
        "stage (1.2 s)\n  2 ok\n  FAILED c: wrong\n  d: us 1.235  count 3"
    )


def test_stages_by_name():
    assert whole.chosen(None) == list(STAGES)
    assert [stage.name for stage in whole.chosen(["models", "kernels"])] == ["kernels", "models"]
    for stage in STAGES:
        module = stage.load() if stage.name != "models timed" else None
        assert module is None or callable(module.units)


def test_what_times_comes_behind_what_checks():
    timed = [stage.is_timed for stage in STAGES]
    assert timed == sorted(timed)
    assert any(timed)
