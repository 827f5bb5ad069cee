"""``gsb-tvm compile`` by records of tuning: which are used, and what is said of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gsb_tvm.extraction import tasks
from gsb_tvm.schedules.choices import text_of
from gsb_tvm.schedules.records import Record, append, to_line
from gsb_tvm.schedules.standings import PROVEN
from gsb_tvm.targets import resolve
from gsb_tvm.tuning.tasks import Task
from tests import tiny_models as tiny
from tests.commandline import CommandLine, Done, refused
from tests.tiny_models import save

NATIVE = resolve("native")
OPEN: dict[str, Any] = {
    "shape": ("n", tiny.TOKENS, tiny.FEATURES),
    "out_shape": ("n", tiny.TOKENS, tiny.COLUMNS),
}


def often(path: Path, records: Sequence[Record]) -> None:
    """Put on record what was measured at as many moments as it takes."""
    append(path, [record for record in records for _ in range(PROVEN)])


def record(task: Task, place: int, **changes: Any) -> Record:
    """That a choice takes half the rule's time."""
    key = task.key
    fields: dict[str, Any] = {
        "kernel": key.kernel,
        "schedule": key.schedule,
        "features": key.features,
        "cpu": key.cpu,
        "choice": dict(task.space[place]),
        "seconds": (1e-6,),
        "rule": (2e-6,),
    }
    return Record(**{**fields, **changes})


def compiled(gsb: CommandLine, folder: Path, *words: object, **options: Any) -> Done:
    """Compile the model of a folder to ``out.so``."""
    done = gsb(folder, "compile", "m.onnx", "-o", "out.so", "--no-verify", *words, **options)
    assert done.code == 0, done
    assert done.err == "", done
    return done


def artefact(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "out.so").read_bytes(), (folder / "out.json").read_bytes()


def cached(folder: Path) -> str:
    """Code that makes ``folder`` the user's cache."""
    return f"import os; os.environ['GSB_TVM_CACHE'] = {str(folder)!r}"


@pytest.fixture(scope="module")
def found() -> list[Task]:
    return tasks(tiny.binary_linear(), None, NATIVE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path, tiny.binary_linear())
    return tmp_path


@pytest.fixture(scope="module")
def by_rule(gsb: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The artefact without any records."""
    folder = tmp_path_factory.mktemp("rule")
    save(folder, tiny.binary_linear())
    compiled(gsb, folder, "--by-rule")
    return artefact(folder)


def test_records_choose_and_the_artefact_says_so(
    gsb: CommandLine, folder: Path, found: list[Task], by_rule: tuple[bytes, bytes]
) -> None:
    often(folder / "r.txt", [record(task, len(task.space) - 1) for task in found])
    done = gsb(folder, "compile", "m.onnx", "-o", "out.so", "--records", "r.txt", "--json")
    assert done.code == 0, done
    said = json.loads(done.out)
    assert said["verify"]["verdict"] == "ok"
    choices = sorted(text_of(task.space[-1]) for task in found)
    assert sorted(row["choice"] for row in said["tuned"]["rows"]) == choices
    assert said["tuned"]["kernels"] >= len(choices)
    assert artefact(folder)[0] != by_rule[0]
    inspected = json.loads(gsb(folder, "inspect", "out.so", "--json").out)
    (program,) = inspected["programs"]
    assert {(row["kernel"], row["choice"]) for row in said["tuned"]["rows"]} == set(
        program["tuned"].items()
    )


def test_what_is_said_to_people(gsb: CommandLine, folder: Path, found: list[Task]) -> None:
    often(folder / "r.txt", [record(found[1], 1)])
    done = compiled(gsb, folder, "--records", "r.txt")
    assert f"1 of 2 kernels by records: {found[1].name}" in done.out
    assert "note" not in done.out
    assert "none of 2 kernels" in compiled(gsb, folder, "--by-rule").out


def test_float_kernels_are_counted_too(gsb: CommandLine, tmp_path: Path) -> None:
    """Of the demo model, all kernels at once."""
    some = tasks(_demo(), None, NATIVE)
    often(tmp_path / "r.txt", [record(task, 1) for task in some])
    words = ("compile", "--no-verify", "-o", "out.so", "--records", "r.txt", "--json")
    done = gsb(tmp_path, *words)
    assert done.code == 0, done
    said = json.loads(done.out)["tuned"]
    assert len(said["rows"]) == len(some)
    assert said["kernels"] >= len(some)


def _demo() -> Path:
    from gsb_tvm.models.demo import model_path

    return model_path()


def test_the_same_records_give_the_same_bytes(
    gsb: CommandLine, folder: Path, found: list[Task]
) -> None:
    lines = [record(task, place) for task in found for place in (3, 1, 2)]
    made = []
    for order in (lines, lines, lines[::-1]):
        (folder / "r.txt").write_bytes(b"".join(map(to_line, order)))
        compiled(gsb, folder, "--records", "r.txt")
        made.append(artefact(folder))
    assert made[0] == made[1] == made[2]


CHANGES: dict[str, Callable[[Task], dict[str, Any]]] = {
    "another feature set": lambda task: {"features": "0123456789abcdef"},
    "another CPU": lambda task: {"cpu": "pentium4"},
    "another version": lambda task: {"schedule": task.key.schedule + 1},
    "another kernel": lambda task: {"kernel": "Dense {}"},
    "a choice that is none": lambda task: {"choice": {"rows": 12345}},
    "a failure": lambda task: {"seconds": (), "rule": (), "failure": "wrong result"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_not_measured_for_this_leaves_the_rule(
    change: str,
    gsb: CommandLine,
    folder: Path,
    found: list[Task],
    by_rule: tuple[bytes, bytes],
) -> None:
    often(folder / "r.txt", [record(task, 1, **CHANGES[change](task)) for task in found])
    done = compiled(gsb, folder, "--records", "r.txt", "--json")
    assert json.loads(done.out)["tuned"]["rows"] == []
    assert json.loads(done.out)["notes"] == []
    assert artefact(folder) == by_rule


def test_an_empty_file_of_records_leaves_the_rule(
    gsb: CommandLine, folder: Path, by_rule: tuple[bytes, bytes]
) -> None:
    (folder / "r.txt").touch()
    compiled(gsb, folder, "--records", "r.txt")
    assert artefact(folder) == by_rule


def test_damaged_lines_are_noted(gsb: CommandLine, folder: Path, found: list[Task]) -> None:
    good = PROVEN * to_line(record(found[0], 1))
    (folder / "r.txt").write_bytes(b"# mine\n" + good + to_line(record(found[1], 1))[:60])
    said = json.loads(compiled(gsb, folder, "--records", "r.txt", "--json").out)
    assert [row["choice"] for row in said["tuned"]["rows"]] == [text_of(found[0].space[1])]
    assert said["notes"] == ["r.txt: 2 of its lines were skipped: see gsb-tvm db check."]
    assert "2 of its lines were skipped" in compiled(gsb, folder, "--records", "r.txt").out


@pytest.mark.parametrize(
    ("name", "reason"), [("none.txt", "No such file"), (".", "directory"), ("x" * 300, "too long")]
)
def test_a_named_file_that_cannot_be_read(
    name: str, reason: str, gsb: CommandLine, folder: Path
) -> None:
    done = gsb(folder, "compile", "m.onnx", "--records", name)
    refused(done, 2, f"{name}: records cannot be read: ", reason)


def test_records_and_the_rule_exclude_each_other(gsb: CommandLine, folder: Path) -> None:
    (folder / "r.txt").touch()
    done = gsb(folder, "compile", "m.onnx", "--records", "r.txt", "--by-rule")
    refused(done, 2, "--by-rule")


def test_the_users_cache(
    gsb: CommandLine, folder: Path, found: list[Task], by_rule: tuple[bytes, bytes]
) -> None:
    cache = folder / "cache"
    compiled(gsb, folder, patch=cached(cache))
    assert artefact(folder) == by_rule
    assert not cache.exists()
    often(cache / "tuned.records", [record(task, 1) for task in found])
    said = json.loads(compiled(gsb, folder, "--json", patch=cached(cache)).out)
    assert len(said["tuned"]["rows"]) == len(found)
    assert artefact(folder)[0] != by_rule[0]
    compiled(gsb, folder, "--by-rule", patch=cached(cache))
    assert artefact(folder) == by_rule
    # A file that is named takes the place of the cache.
    (folder / "r.txt").touch()
    compiled(gsb, folder, "--records", "r.txt", patch=cached(cache))
    assert artefact(folder) == by_rule


@pytest.mark.parametrize("place", ["/dev/null", "x" * 5000, "/proc/1/nothing"])
def test_a_cache_that_cannot_be(
    place: str, gsb: CommandLine, folder: Path, by_rule: tuple[bytes, bytes]
) -> None:
    compiled(gsb, folder, patch=f"import os; os.environ['GSB_TVM_CACHE'] = {place!r}")
    assert artefact(folder) == by_rule


def test_each_batch_has_its_own_kernels(gsb: CommandLine, tmp_path: Path) -> None:
    save(tmp_path, tiny.binary_linear(**OPEN))
    two = tasks(tiny.binary_linear(**OPEN), 2, NATIVE)
    often(tmp_path / "r.txt", [record(task, 1) for task in two])
    done = compiled(gsb, tmp_path, "--batch", "1,2", "--records", "r.txt", "--json")
    said = json.loads(done.out)["tuned"]
    assert [row["batch"] for row in said["rows"]] == [2] * len(two)
    assert said["kernels"] == 2 * len(two)


def test_for_a_target_that_does_not_run_here(gsb: CommandLine, folder: Path) -> None:
    profile = resolve("llvm -mcpu=cortex-a72")
    (first, *_) = tasks(tiny.binary_linear(), None, profile)
    here = msgspec.structs.replace(record(first, 1), cpu=NATIVE.mcpu)
    often(folder / "r.txt", [record(first, 1), here])
    words = ("--target", "llvm", "-mcpu=cortex-a72", "--records", "r.txt", "--json")
    done = gsb(folder, "compile", "m.onnx", "-o", "out.so", "--no-verify", *words)
    if done.code == 4:
        pytest.skip("no cross linker")
    rows = json.loads(done.out)["tuned"]["rows"]
    assert [row["choice"] for row in rows] == [text_of(first.space[1])]
