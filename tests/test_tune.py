"""``gsb-tvm tune``: what it prints and leaves, that it goes on from what is on record, mistakes."""

import io
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gsb_tvm import tune_table
from gsb_tvm.extraction import tasks
from gsb_tvm.models.demo import model_path
from gsb_tvm.schedules.records import Record, append, load, to_line
from gsb_tvm.schedules.standings import PROVEN
from gsb_tvm.targets import missing_here, resolve
from gsb_tvm.tune_table import Ideals, Row, report, table
from gsb_tvm.tuning.tasks import Task
from gsb_tvm.tuning.tuner import Progress
from tests import tiny_models as tiny
from tests.commandline import CommandLine, Done, refused
from tests.tiny_models import save

NATIVE = resolve("native")


def clean(done: Done, code: int = 0) -> Done:
    assert done.code == code, done
    assert "Traceback" not in done.out + done.err, done
    return done


def cache(folder: Path) -> str:
    """Code that makes ``folder`` the user's cache."""
    return f"import os; os.environ['GSB_TVM_CACHE'] = {str(folder)!r}"


@pytest.fixture(scope="module")
def tuned(gsb: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A folder with a tiny model, tuned by four trials, and what was said."""
    folder = tmp_path_factory.mktemp("tuned")
    save(folder, tiny.binary_linear())
    words = ("tune", "m.onnx", "--trials", 4, "--records", "new/r.txt")
    return folder, clean(gsb(folder, *words))


def test_plain_lines_and_a_table(tuned: tuple[Path, Done]) -> None:
    _, done = tuned
    lines = done.out.splitlines()
    assert "\x1b" not in done.out
    assert [" ".join(line.split()[2:4]) for line in lines[:2]] == ["trial 1:", "trial 2:"]
    assert all("µs by rule" in line for line in lines[:2])
    titles = next(line.split() for line in lines if line.startswith("kernel "))
    assert titles[:5] == ["kernel", "shape", "choice", "calls", "trials"]
    assert any(line.startswith("binarize ") for line in lines)
    assert any(line.startswith("dense_") for line in lines)
    assert "4, 4 of them new" in done.out
    assert "new/r.txt: gsb-tvm compile takes them from there" in done.out
    assert done.left >= {"new/r.txt"}
    assert done.left <= {"new/r.txt", "new/r.txt.lock"}


def test_what_is_recorded(tuned: tuple[Path, Done]) -> None:
    folder, _ = tuned
    found = load(folder / "new/r.txt")
    assert not found.faults
    by_key = {task.key: task for task in tasks(folder / "m.onnx", None, NATIVE)}
    assert {record.key for record in found.records} == by_key.keys()
    for record in found.records:
        assert record.choice in by_key[record.key].space
        assert record.host
        assert abs(record.made - time.time()) < 3600
    for key, task in by_key.items():
        first = next(record for record in found.records if record.key == key)
        assert first.choice == task.space[0]


def test_the_same_command_does_nothing_more(gsb: CommandLine, tuned: tuple[Path, Done]) -> None:
    folder, _ = tuned
    before = (folder / "new/r.txt").read_bytes()
    words = ("tune", "m.onnx", "--trials", 4, "--records", "new/r.txt", "--json")
    done = clean(gsb(folder, *words))
    assert (done.err, done.left) == ("", set())
    found = json.loads(done.out)
    assert (found["trials"], found["new"], found["failed"], found["lost"]) == (4, 0, 0, 0)
    assert (folder / "new/r.txt").read_bytes() == before


def test_json_and_more_trials(gsb: CommandLine, tuned: tuple[Path, Done], tmp_path: Path) -> None:
    """From a copy of what is on record, with lines that are none."""
    folder, _ = tuned
    lines = (folder / "new/r.txt").read_bytes()
    path = tmp_path / "r.txt"
    path.write_bytes(b"# mine\n" + lines + lines[:40])
    model = folder / "m.onnx"
    done = clean(gsb(tmp_path, "tune", model, "--trials", 6, "--records", path, "--json"))
    assert done.err == ""
    found = json.loads(done.out)
    assert (found["trials"], found["new"]) == (6, 2)
    assert found["target"] == NATIVE.target_string
    assert found["records"] == str(path)
    assert found["rule_ms"] >= found["best_ms"] > 0
    assert any("2 of its lines were skipped" in note for note in found["notes"])
    assert sum(row["trials"] for row in found["kernels"]) == 6
    for row in found["kernels"]:
        assert row["gain"] >= 1
        assert row["rule_us"] >= row["best_us"] > 0
        assert 0 < row["share"] <= 1
    assert sum(row["share"] for row in found["kernels"]) == pytest.approx(1)
    assert path.read_bytes().startswith(b"# mine\n" + lines + lines[:40] + b"\n")
    tried = {(r.key, tuple(sorted(r.choice.items()))) for r in load(path).records}
    assert len(tried) == 6


def test_the_demo_model_into_the_users_cache(gsb: CommandLine, tmp_path: Path) -> None:
    """Each kernel's rule is measured, however few the trials; then nothing is left to do."""
    folder = tmp_path / "cache"
    done = clean(gsb(tmp_path, "tune", "--trials", 3, "--json", patch=cache(folder)))
    found = json.loads(done.out)
    assert found["records"] == str(folder / "tuned.records")
    assert found["trials"] == found["new"] == len(found["kernels"]) > 3
    assert {row["trials"] for row in found["kernels"]} == {1}
    assert done.left <= {"cache/tuned.records", "cache/tuned.records.lock"}
    lines = (folder / "tuned.records").read_bytes()
    again = clean(gsb(tmp_path, "tune", "--trials", 3, patch=cache(folder)))
    assert "0 of them new" in again.out
    assert (folder / "tuned.records").read_bytes() == lines


BAD = {
    "no trials": ["--trials", "0"],
    "fewer than none": ["--trials", "-1"],
    "half a trial": ["--trials", "1.5"],
    "trials in words": ["--trials", "many"],
    "no minutes": ["--minutes", "0"],
    "fewer than no minutes": ["--minutes", "-1"],
    "no number of minutes": ["--minutes", "nan"],
    "minutes without end": ["--minutes", "inf"],
    "more seconds than there are": ["--minutes", "1e308"],
    "minutes in words": ["--minutes", "ten"],
    "seed below 0": ["--seed", "-1"],
    "seed too large": ["--seed", "2147483647"],
    "seed in words": ["--seed", "x"],
    "no batch": ["--batch", "0"],
    "several batches": ["--batch", "1,2"],
    "tracker without port": ["--tracker", "localhost", "--key", "pi4"],
    "tracker without key": ["--tracker", "127.0.0.1:9190"],
    "key without tracker": ["--key", "pi4"],
    "nobody at the tracker": ["--tracker", "127.0.0.1:9", "--key", "pi4"],
    "a target of another kind": ["--target", "llvm", "-mcpu=cortex-a72"],
    "target mistyped": ["--target", "llvm", "-mcpu=cortex-a27"],
    "records are a folder": ["--records", "."],
    "records in a file": ["--records", "m.onnx/r.txt"],
    "records in a folder that is read-only": ["--records", "/proc/r.txt"],
    "a name too long": ["--records", "x" * 300],
    "two models": ["n.onnx"],
    "unknown flag": ["--trails", "3"],
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_exit_2(name: str, gsb: CommandLine, tmp_path: Path) -> None:
    save(tmp_path, tiny.binary_linear())
    refused(gsb(tmp_path, "tune", "m.onnx", *BAD[name]), 2)


def test_a_target_that_does_not_run_here_is_for_a_board(gsb: CommandLine, tmp_path: Path) -> None:
    profile = resolve("llvm -mcpu=cortex-a72")
    if not missing_here(profile):
        pytest.skip("it does run here")
    words = ("tune", "--target", "llvm", "-mcpu=cortex-a72")
    refused(gsb(tmp_path, *words), 2, "does not run here", "--tracker HOST:PORT")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_records_that_are_read_only(gsb: CommandLine, tmp_path: Path) -> None:
    save(tmp_path, tiny.binary_linear())
    (tmp_path / "r.txt").touch(mode=0o400)
    refused(gsb(tmp_path, "tune", "m.onnx", "--records", "r.txt"), 2, "ermission")


def test_bad_models_exit_3(gsb: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    for name in ("none.onnx", "bad.onnx"):
        refused(gsb(tmp_path, "tune", name, "--records", "new/r.txt"), 3, name)
    save(tmp_path, tiny.binary_linear())
    refused(gsb(tmp_path, "tune", "m.onnx", "--batch", 3, "--records", "r.txt"), 3, "batch")


def test_full_standard_output_exits_2_and_keeps_records(
    gsb: CommandLine, tuned: tuple[Path, Done], tmp_path: Path
) -> None:
    folder, _ = tuned
    (tmp_path / "r.txt").write_bytes((folder / "new/r.txt").read_bytes())
    words = ("tune", folder / "m.onnx", "--trials", 1, "--records", "r.txt")
    done = gsb(tmp_path, *words, stdout="/dev/full")
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert "standard output cannot be written" in done.err
    assert len(load(tmp_path / "r.txt").records) == 4


# What is shown


@dataclass
class Job:
    """What a view sees of a tuner."""

    tasks: list[Task]
    seconds_left: float | None = 3725.0
    progress: Progress = field(default_factory=lambda: Progress(0.0, 0, doing="measuring"))
    trials: int = 7


@pytest.fixture(scope="module")
def found() -> list[Task]:
    return tasks(model_path(), None, NATIVE)


@pytest.fixture
def job(found: list[Task]) -> Job:
    """All rules measured, and a choice that takes half the time."""
    fresh = [Task(t.workload, t.name, t.shape, t.calls, t.key, t.space) for t in found]
    for task in fresh:
        task.add([record(task, 0, 1e-5)])
    fresh[0].add([record(fresh[0], 1, 0.5e-5)] * PROVEN)
    return Job(fresh)


def record(task: Task, place: int, seconds: float) -> Record:
    key = task.key
    return Record(
        kernel=key.kernel,
        schedule=key.schedule,
        features=key.features,
        cpu=key.cpu,
        choice=dict(task.space[place]),
        seconds=(seconds,),
        rule=(1e-5,),
    )


def terminal(**options: Any) -> Console:
    settings = {"force_terminal": True, "width": 140, "height": 40, "legacy_windows": False}
    return Console(file=io.StringIO(), **{**settings, **options})


def text(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("height", [40, 8])
def test_a_live_table(job: Any, height: int) -> None:
    console = terminal(height=height)
    view = tune_table._Live(Ideals(), console)
    with view.live:
        view.live.refresh()
        assert "preparing" in text(console)
        view.changed(job)
        view.live.refresh()
    assert "trial 7, 1:02:05 to go: measuring" in text(console)
    assert "2.00x" in text(console)
    assert text(console).rstrip("\r").endswith(("\x1b[?25h", "\x1b[2K"))  # cursor back, all erased


@pytest.mark.parametrize("left", [None, 0.0, 59.9, 1e9])
def test_a_live_table_with_any_time_to_go(job: Any, left: float | None) -> None:
    console = terminal(no_color=True)
    job.seconds_left = left
    view = tune_table._Live(Ideals(), console)
    with view.live:
        view.changed(job)
        view.live.refresh()
    assert ("to go" in text(console)) == (left is not None)


def test_a_live_table_before_anything_is_measured(found: list[Task]) -> None:
    console = terminal(width=80, height=24, no_color=True)
    view = tune_table._Live(Ideals(), console)
    with view.live:
        view.changed(Job(found))  # type: ignore[arg-type]
        view.live.refresh()
    drawn = [line for line in text(console).splitlines() if " 0/" in line]
    lines = drawn[-len(found) :]
    assert [line[:16].rstrip() for line in lines] == [task.name[:16] for task in found]
    assert [line.split()[-1] for line in lines] == [f"0/{len(task.space)}" for task in found]


def test_drawing_does_not_look_at_tasks_that_change(job: Any) -> None:
    console = terminal()
    view = tune_table._Live(Ideals(), console)
    view.changed(job)
    errors: list[BaseException] = []

    def draw() -> None:
        try:
            view._drawn()
        except BaseException as err:
            errors.append(err)

    # As in the middle of a trial's being added: whoever looks at the task now finds no end.
    job.tasks[0].ratios = _Changing(job.tasks[0].ratios)
    thread = threading.Thread(target=draw)
    thread.start()
    thread.join()
    assert not errors


class _Changing(dict[int, list[float]]):
    def __iter__(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


def test_lines_say_what_is_new(job: Any, capsys: pytest.CaptureFixture[str]) -> None:
    view = tune_table._Lines(Ideals())
    view.changed(job)
    first = capsys.readouterr().out.splitlines()
    assert len(first) == len(job.tasks)
    view.changed(job)
    assert capsys.readouterr().out == ""
    task = job.tasks[1]
    task.add([record(task, 1, 0.25e-5)] * PROVEN)
    view.changed(job)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(f"trial 7: {task.name} {task.shape}: 2.5 µs, 4.00x the rule")


def test_a_report_of_a_job_that_has_measured_nothing(found: list[Task]) -> None:
    result = report(Job(found), tune_table.View(Ideals()), ["a note"])  # type: ignore[arg-type]
    assert (result.rule_ms, result.best_ms) == (0, 0)
    assert {(row.rule_us, row.share, row.gain) for row in result.rows} == {(None, None, 1.0)}
    assert result.notes[0] == "a note"
    assert json.dumps([row.as_dict() for row in result.rows])
    console = terminal(width=60)
    console.print(table(result.rows))
    assert "nan" not in text(console)


def test_a_table_takes_names_literally() -> None:
    row = Row(
        "[red]a[/red]", "1 x 2", 1, 1, 2, 0, 1.0, 1.0, 1.0, 1.0, None, "more way=[b]", "way=[b]"
    )
    console = terminal(no_color=True)
    console.print(table([row]))
    assert "[red]a[/red]" in text(console)
    assert "way=[b]" in text(console)


def test_records_may_be_those_of_other_machines(gsb: CommandLine, tmp_path: Path) -> None:
    """They count as nothing, and stay."""
    save(tmp_path, tiny.binary_linear())
    (task, *_) = tasks(tmp_path / "m.onnx", None, NATIVE)
    other = Record(
        kernel=task.key.kernel,
        schedule=task.key.schedule,
        features="0" * 16,
        cpu=task.key.cpu,
        choice=dict(task.space[0]),
        seconds=(1.0,),
        rule=(1.0,),
    )
    append(tmp_path / "r.txt", [other])
    words = ("tune", "m.onnx", "--trials", 1, "--records", "r.txt", "--json")
    found = json.loads(clean(gsb(tmp_path, *words)).out)
    assert found["new"] == found["trials"] == 2
    assert (tmp_path / "r.txt").read_bytes().startswith(to_line(other))
