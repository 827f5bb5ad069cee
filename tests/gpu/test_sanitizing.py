"""What is made of NVIDIA's tools' words, and that they are started on the small kernels."""

from pathlib import Path

import pytest

from tests.gpu.rows import Row
from tests.gpu.sanitizing import TOOLS, checked, judged

OK, WRONG = Row("a", "ok"), Row("b", "failed", "wrong result")
SAID = "========= Invalid __global__ write of size 4 bytes\n=========     at kernel+0x10\n"


@pytest.mark.parametrize(
    ("code", "found", "log", "late", "verdict", "text"),
    [
        (0, [OK, OK], "", False, "ok", "nothing found"),
        (9, [OK], SAID, False, "failed", "Invalid __global__ write"),
        (0, [OK, WRONG], "", False, "failed", "wrong results: b"),
        (-9, [OK], "", True, "ok", "until its time was over"),
        (-9, [], "", True, "skipped", "until its time was over"),
        (1, [], "no GPU", False, "failed", "ended with 1: no GPU"),
        (0, [], "", False, "failed", "ended with 0"),
        (1, [], "========= Device not supported", False, "skipped", "does not support"),
    ],
)
def test_judged(code, found, log, late, verdict, text):
    row = judged("memcheck", code, found, log, late=late)
    assert row.verdict == verdict
    assert text in row.text
    assert row.figures == {"kernels": len(found)}


def test_what_is_copied_need_not_be_written():
    said = "========= Host API uninitialized memory access of size 64 bytes"
    assert judged("initcheck", 9, [OK], said).verdict == "ok"
    said = "========= Uninitialized __global__ memory read of size 4 bytes"
    assert judged("initcheck", 9, [OK], said).verdict == "failed"


def test_without_the_program_nothing_is_said(folder: Path):
    (row,) = checked(folder, None)
    assert row.verdict == "skipped"


def test_each_tool_runs_the_stage(folder: Path, tmp_path: Path):
    """A program in the tools' place: says what it was told, and runs nothing."""
    program = tmp_path / "compute-sanitizer"
    program.write_text('#!/bin/sh\necho "$@"\nwc -l\nexit 5\n')
    program.chmod(0o755)
    rows = list(checked(folder, str(program)))
    assert [row.name for row in rows] == list(TOOLS)
    for row in rows:
        assert f"--tool {row.name} --error-exitcode=9" in row.text
        assert "--stage watched kernels" in row.text
