"""What an object keeps to itself, seen by a linker."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gsb_tvm.runtime.build import Code
from gsb_tvm.runtime.weak_functions import with_local_weak_functions

LIBRARY = """
int before(void) { return 1; }
__attribute__((weak)) int shared(void) { return 2; }
__attribute__((weak)) int number = 3;
int (*const pointer)(void) = shared;
int model(void) { return before() + 10 * shared() + 100 * number + 1000 * pointer(); }
"""
# Has a function of that name of its own; `number` is no function and stays weak.
PROGRAM = """
#include <stdio.h>
int shared(void) { return 7; }
int number = 5;
int model(void);
int main(void) { printf("%d %d", model(), shared()); }
"""


def tool(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def output(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_they_serve_their_object_alone(tmp_path: Path) -> None:
    source, made, program = (tmp_path / name for name in ("library.c", "library.o", "program"))
    source.write_text(LIBRARY)
    (tmp_path / "program.c").write_text(PROGRAM)
    for options in (["-O0", "-fPIC"], ["-O1", "-fno-pic", "-no-pie"]):
        output(tool("gcc"), *options, "-c", source, "-o", made)
        made.write_bytes(with_local_weak_functions(made.read_bytes()))
        output(tool("gcc"), *options, tmp_path / "program.c", made, "-o", program)
        assert output(program) == "2521 7"


def test_kernels_keep_theirs(popcount_code: Code, tmp_path: Path) -> None:
    (tmp_path / "kernels.o").write_bytes(popcount_code.kernels)
    lines = output(tool("nm"), "--defined-only", tmp_path / "kernels.o").splitlines()
    kinds = {name: kind for _, kind, name in map(str.split, lines)}
    assert kinds["__extendhfsf2"] == kinds["__truncsfhf2"] == "t"
    assert kinds["gsb_part"] == kinds["gsb_run"] == "T"
