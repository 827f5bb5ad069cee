"""``gsb-tvm db``: what it prints, keeps, refuses."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gsb_tvm.cli import main
from gsb_tvm.db_plot import best_by_trial
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Dense, Kind, encode
from gsb_tvm.schedules.records import Record, append, load, to_line
from gsb_tvm.schedules.standings import best

KERNEL = encode(Dense(Rows(1, 198, 1, 384), Kind.SIGN, Kind.SIGN, 1536, 64, ()))


def made(micros: float, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "kernel": KERNEL,
        "schedule": 1,
        "features": "0123456789abcdef",
        "cpu": "haswell",
        "choice": {"rows": 3, "method": "lookup"},
        "seconds": (micros * 1e-6,),
        "rule": (20e-6,),
    }
    return Record(**{**fields, **changes})


FAST, SLOW = made(10), made(20, choice={})
FAILED = made(1, seconds=(), rule=(), failure="wrong numbers", choice={"rows": 9})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "records.txt"
    append(found, [SLOW, FAILED, FAST])
    return found


def damage(path: Path) -> None:
    path.write_bytes(b"\n" + to_line(SLOW)[:50] + b"\n" + path.read_bytes())


def test_check(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "check", str(path)]) == 0
    assert capsys.readouterr().out == "3 records of 1 kernels, 1 failed\n"
    damage(path)
    assert main(["db", "check", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {path}: 2 lines are no records (1 blank, 1 cut or damaged) beside 3 records. "
        "gsb-tvm db prune removes them.\n"
    )


def test_list(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(path)
    assert main(["db", "list", str(path)]) == 0
    title, row, _, last = capsys.readouterr().out.splitlines()
    assert title.split() == ["kernel", "shape", "machine", "choice", "µs", "gain", "trials"]
    assert row.split()[0] == "Dense"
    assert "198 x 384 x 1536" in row
    assert row.split()[-5:] == ["method=lookup", "rows=3", "10.0", "2.00x", "3"]
    assert last.endswith("1 failed; 2 lines skipped (1 blank, 1 cut or damaged)")


def test_list_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "list", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {**json.loads(msgspec.json.encode(FAST)), "gain": pytest.approx(2), "trials": 3}
    ]


def test_a_kernel_of_another_version_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(tmp_path / "r.txt", [made(1, kernel='Conv {"old":1}')])
    assert main(["db", "list", str(tmp_path / "r.txt")]) == 0
    assert 'Conv    {"old":1}' in capsys.readouterr().out


def test_merge(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, out = tmp_path / "other.txt", tmp_path / "out.txt"
    more = made(5, kernel="Dense other")
    append(other, [FAST, more, more])
    assert main(["db", "merge", str(out), str(path), str(other)]) == 0
    assert capsys.readouterr().out == "4 records added, 2 were there\n"
    assert load(out).records == (SLOW, FAILED, FAST, more)
    assert main(["db", "merge", str(out), str(other)]) == 0
    assert capsys.readouterr().out == "0 records added, 3 were there\n"
    assert load(out).records == (SLOW, FAILED, FAST, more)


def test_prune(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(path)
    path.chmod(0o640)
    assert main(["db", "prune", str(path)]) == 0
    assert capsys.readouterr().out == "2 records kept, 1 dropped, 2 other lines removed\n"
    assert path.read_bytes() == to_line(FAILED) + to_line(FAST)
    assert path.stat().st_mode & 0o777 == 0o640
    assert {found.name for found in path.parent.iterdir()} <= {"records.txt", "records.txt.lock"}


def test_export_and_import(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, back = tmp_path / "records.json", tmp_path / "back.txt"
    assert main(["db", "export", str(path), str(text)]) == 0
    assert [row["cpu"] for row in json.loads(text.read_text())] == ["haswell"] * 3
    assert main(["db", "import", str(back), str(text)]) == 0
    assert main(["db", "import", str(back), str(text)]) == 0
    assert back.read_bytes() == path.read_bytes()
    assert capsys.readouterr().out.splitlines()[1:] == [
        "3 records added, 0 were there",
        "0 records added, 3 were there",
    ]


@pytest.mark.parametrize("text", ["", "{}", '[{"kernel": 1}]', "[1]", "\0"])
def test_json_that_holds_no_records(
    text: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text(text)
    before = path.read_bytes()
    assert main(["db", "import", str(path), str(tmp_path / "bad.json")]) == 2
    assert "bad.json: no JSON array of records" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ["check", "none.txt"],
        ["list", "none.txt"],
        ["prune", "none.txt"],
        ["export", "none.txt", "out.json"],
        ["import", "out.txt", "none.json"],
        ["merge", "out.txt", "none.txt"],
    ],
)
def test_a_file_that_is_not_there(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["db", *words]) == 2
    assert capsys.readouterr().err.endswith("cannot be read: No such file or directory.\n")
    assert not [found for found in tmp_path.iterdir() if found.suffix != ".lock"]


def test_no_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db"]) == 2
    assert "required: WHAT" in capsys.readouterr().err


def test_plot(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    first, again = tmp_path / "a.svg", tmp_path / "b.svg"
    for picture in (first, again):
        assert main(["db", "plot", str(path), str(picture)]) == 0
    assert first.read_bytes() == again.read_bytes()
    assert b"Dense 198 x 384 x 1536" in first.read_bytes()
    assert main(["db", "plot", str(path), str(tmp_path / "a.txt")]) == 2
    assert "expected a name that ends in .svg" in capsys.readouterr().err
    (tmp_path / "empty").touch()
    assert main(["db", "plot", str(tmp_path / "empty"), str(first)]) == 2


def test_the_best_by_trial() -> None:
    records = [made(20, choice={}), made(30, choice={"a": 1}), made(10, choice={"a": 2})]
    lucky = made(5, choice={"a": 3})
    sure = msgspec.structs.replace(lucky, seconds=(15e-6,) * 3, rule=(20e-6,) * 3)
    found = best_by_trial([*records, FAILED, lucky, sure])
    assert found == pytest.approx([1.0, 1.0, 0.5, 0.5, 0.5])


def test_prune_to_what_replaces_the_rule(path: Path) -> None:
    append(path, [FAST, FAST, made(19.9, kernel="Dense other"), made(8, choice={"rows": 1})])
    assert main(["db", "prune", "--better", str(path)]) == 0
    assert load(path).records == (FAST, FAST, FAST)


@pytest.mark.parametrize("better", [[], ["--better"]])
def test_prune_keeps_what_tells_which_moments_were_quiet(path: Path, better: list[str]) -> None:
    quiet = made(5, choice={"rows": 1}, rule=(5e-6,))
    proof, loud = (made(3, rule=(micros * 1e-6,)) for micros in (6, 7))
    append(path, [quiet, proof, proof, proof, loud])
    before = best(load(path).records)[FAST.key]
    assert before.moments == 3
    assert main(["db", "prune", *better, str(path)]) == 0
    assert best(load(path).records)[FAST.key] == before
    assert SLOW not in load(path).records
