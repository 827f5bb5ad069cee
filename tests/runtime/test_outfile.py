import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gsb_tvm.dialect.errors import OutputError
from gsb_tvm.runtime import outfile
from gsb_tvm.runtime.outfile import Output, check_writable, scratch_folder, write_file, write_files


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.so"
    write_file(path, b"old", mode=0o755)
    write_file(path, b"new", mode=0o755)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755 & ~outfile._umask()
    assert os.listdir(tmp_path) == ["a.so"]


@pytest.mark.parametrize("call", [check_writable, lambda path: write_file(path, b"x")])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("none/a.so", "the folder does not exist"),
        ("file/a.so", "a part of the path is a file, not a folder"),
        ("folder", "it is a folder"),
        ("pipe", "there is a link, a device or a pipe"),
        ("link", "there is a link, a device or a pipe"),
        ("dangling", "there is a link, a device or a pipe"),
        ("/proc/a.so", "cannot be written"),
        ("x" * 300, "cannot be written"),
    ],
)
def test_names_what_is_in_the_way(tmp_path: Path, call, place: str, reason: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OutputError, match=reason):
        call(tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="no permission"):
        check_writable(tmp_path / "a.so")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failure_on_the_way_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    path = tmp_path / "a.so"
    write_file(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(outfile.os, name, fail)
    with pytest.raises(OutputError, match=r"a\.so: cannot be written"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.so"]


def test_a_size_limit_stops_the_write(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from gsb_tvm.runtime.outfile import write_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_file(Path(sys.argv[1]), bytes(100000))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.so")], capture_output=True, text=True
    )
    assert "OutputError" in done.stderr
    assert "larger than the size limit allows" in done.stderr
    assert os.listdir(tmp_path) == []


def test_scratch_asks_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(OutputError, match="temporary files cannot be written"):
        with scratch_folder(1 << 60):
            pass
    with scratch_folder(1 << 10) as folder:
        (folder / "x").write_bytes(b"x")
    assert os.listdir(tmp_path) == []


def test_no_folder_for_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match="Set TMPDIR"):
        with scratch_folder(1):
            pass


def test_several_files_are_written_all_or_none(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.json", tmp_path / "none" / "a.so"
    write_file(good, b"old")
    with pytest.raises(OutputError, match="the folder does not exist"):
        write_files([Output(good, b"new"), Output(bad, b"new")])
    assert good.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]
