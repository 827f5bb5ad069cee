import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("room", ["passes", "schedules", "targets"])
def test_room_is_a_relative_link_to_the_top_level(room):
    link = ROOT / "gsb_tvm" / room
    assert link.is_symlink(), f"{link} is not a link: was the checkout unpacked without links?"
    assert link.readlink() == Path("..", room)
    assert (link / "__init__.py").samefile(ROOT / room / "__init__.py")


@pytest.mark.parametrize("room", ["passes", "schedules", "targets"])
def test_git_stores_the_link_as_a_link(room):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--stage", f"gsb_tvm/{room}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.startswith("120000 ")


def test_no_file_has_a_name_that_says_nothing():
    empty = {"utils", "common", "helpers", "misc"}
    found = [
        path
        for room in ("gsb_tvm", "passes", "schedules", "targets", "tests")
        for path in (ROOT / room).rglob("*.py")
        if path.stem in empty
    ]
    assert found == []
