"""Artefacts that are not loaded: each with its code and sentence, and nothing crashes."""

import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from gsb_tvm.dialect.versions import PACKAGE
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime import emulate
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.targets import resolve
from gsb_tvm.targets.permission import ask_for_tiles
from tests.cpp.session.conftest import (
    HEADER,
    HERE,
    Demo,
    built,
    by_hand,
    changed,
    compiler,
    loaded,
    output,
)

Sanitized = Callable[[str, str], Path]

_WAY_OUT = "Give the .so that gsb-tvm compile wrote."
_FUNCTION = """
int gsb_part(const float* x, float* y, void* memory, const float* weights, int64_t* ticks,
             int32_t part, int32_t parts, int32_t timed) { return *y = *x, 0; }
"""
_BLOCK = "program gsb_part 0\nmemory 4096 0 4096\ninput float32 0 x\noutput float32 0 y\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact of few bytes."""
    return by_hand(tmp_path_factory.mktemp("small") / "small.so", HEADER + _BLOCK, _FUNCTION)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo for a CPU with dotprod."""
    path = tmp_path_factory.mktemp("arm") / "model.so"
    compile_model(model_path(), resolve("llvm -mcpu=cortex-a76"), Options(path, verify=False))
    return path


def test_what_is_no_artefact(program: Path, tmp_path: Path) -> None:
    text, fifo = tmp_path / "text", tmp_path / "fifo"
    text.write_text("P6\n")
    empty = tmp_path / "empty"
    empty.touch()
    os.mkfifo(fifo)
    paths = [tmp_path / "none.so", tmp_path, fifo, text, empty, Path("/proc/self/exe")]
    assert loaded(program, *paths) == [
        ("file", f"{paths[0]}: cannot be read (No such file or directory)."),
        ("file", f"{tmp_path}: not a file."),
        ("file", f"{fifo}: not a file."),
        ("file", f"{text}: not a shared library (no ELF header). {_WAY_OUT}"),
        ("file", f"{empty}: not a shared library (no ELF header). {_WAY_OUT}"),
        ("file", f"/proc/self/exe: not made by gsb_tvm (no section .gsb_tvm). {_WAY_OUT}"),
    ]


def test_files_cut_anywhere(demo: Demo, sanitized: Sanitized, tmp_path: Path) -> None:
    data = demo.path.read_bytes()
    paths = []
    for size in sorted({*range(0, 80), *range(0, len(data), 4096), len(data) - 1}):
        paths.append(tmp_path / f"{size}.so")
        paths[-1].write_bytes(data[:size])
    found = loaded(sanitized("program", "address,undefined"), *paths)
    assert {code for code, _ in found} == {"file", "damaged"}
    assert found[-1][1] == (
        f"{paths[-1]}: cut off, {len(data) - 1} bytes are left of at least {len(data)}. "
        "Copy it again or compile the model again."
    )


def test_any_changed_byte_is_noticed(small: Path, sanitized: Sanitized, tmp_path: Path) -> None:
    data, draw, paths = small.read_bytes(), random.Random(0), []
    places = [*range(64), *(draw.randrange(len(data)) for _ in range(300))]
    for at in places:
        paths.append(tmp_path / f"{len(paths)}.so")
        byte = data[at] ^ draw.randrange(1, 256)
        paths[-1].write_bytes(data[:at] + bytes([byte]) + data[at + 1 :])
    found = loaded(sanitized("program", "address,undefined"), *paths)
    assert {code for code, _ in found} <= {"file", "damaged", "version"}
    assert found[-1][1] == (
        f"{paths[-1]}: the file was changed after it was written (its checksum does not match). "
        "Copy it again or compile the model again."
    )


def test_another_format(small: Path, program: Path, tmp_path: Path) -> None:
    old = b"gsb-tvm\0" + struct.pack("<I", meta.FORMAT)
    path = changed(small, tmp_path / "m.so", old, b"gsb-tvm\0" + struct.pack("<I", 2))
    sentence = (
        f"{path}: made in artefact format 2, expected {meta.FORMAT}. Compile the model again "
        f"with gsb_tvm {PACKAGE}."
    )
    assert loaded(program, path) == [("version", sentence)]


def test_a_foreign_architecture(arm: Path, program: Path) -> None:
    sentence = (
        f"{arm}: made for aarch64, this machine is x86_64. Copy it to such a machine, or compile "
        "the model for x86_64."
    )
    assert loaded(program, arm) == [("architecture", sentence)]


def test_a_cpu_that_lacks_a_feature(program: Path, tmp_path: Path) -> None:
    features = "feature sse2 0 26 0\nfeature later 7 3 0\n"
    descriptor = HEADER.replace("model", f"{features}model", 1) + _BLOCK
    path = by_hand(tmp_path / "m.so", descriptor, _FUNCTION)
    sentence = (
        f"{path}: made for this, and this CPU lacks later. Compile the model for an older CPU."
    )
    assert loaded(program, path) == [("cpu", sentence)]


def test_code_for_dotprod_on_a_cortex_a72(arm: Path, tmp_path: Path) -> None:
    if emulate.command(resolve("llvm -mcpu=cortex-a76")) is None:
        pytest.skip("qemu-aarch64 is not installed")
    qemu = compiler("qemu-aarch64", "qemu-aarch64-static")
    cross = built(HERE / "program.cpp", tmp_path / "program", by=compiler("aarch64-linux-gnu-g++"))
    for cpu, expected in (("cortex-a72", "cpu"), ("max", "loaded")):
        before = [qemu, "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu"]
        ((code, sentence),) = loaded(cross, arm, before=before)
        assert code == expected
        assert code == "loaded" or "made for cortex-a76, and this CPU lacks asimddp." in sentence


def test_tiles_are_asked_for(program: Path, tmp_path: Path) -> None:
    """As Python is answered; the feature's place is that of SSE2, which every CPU has."""
    descriptor = HEADER.replace("model", "feature amx_tile 0 26 0\nmodel", 1) + _BLOCK
    path = by_hand(tmp_path / "m.so", descriptor, _FUNCTION)
    refused = ask_for_tiles()
    sentence = (
        f"{path}: made for this with AMX, which Linux refuses this process ({refused}). Allow it "
        "arch_prctl(ARCH_REQ_XCOMP_PERM), or compile the model with -mattr=-amx-int8,-amx-tile."
    )
    assert loaded(program, path) == [("cpu", sentence) if refused else ("loaded", "")]


def test_a_library_that_the_loader_refuses(demo: Demo, program: Path, tmp_path: Path) -> None:
    path = changed(demo.path, tmp_path / "m.so", b"libc.so.6\0", b"libc.so.0\0")
    ((code, sentence),) = loaded(program, path)
    assert code == "loader"
    assert sentence.startswith(f"{path}: cannot be loaded (libc.so.0: ")


def test_a_symbol_that_is_not_there(program: Path, tmp_path: Path) -> None:
    path = by_hand(tmp_path / "m.so", HEADER + _BLOCK, _FUNCTION.replace("gsb_part", "other"))
    ((code, sentence),) = loaded(program, path)
    assert code == "loader"
    assert "undefined symbol: gsb_part" in sentence


_DAMAGES = {
    "no compiler": ("compiler", "compiled"),
    "no alignment": ("alignment 64\n", ""),
    "an alignment that is no power of two": ("alignment 64", "alignment 48"),
    "no program": (_BLOCK, ""),
    "no memory": ("memory 4096 0 4096\n", ""),
    '"-1" is no number up to 140737488355328': ("memory 4096", "memory -1"),
    '"9e9" is no number up to 140737488355328': ("memory 4096", "memory 9e9"),
    '"99999999999999999999" is no number': ("memory 4096", "memory 99999999999999999999"),
    '"4097" is no number up to 4096': (" 4096\ninput", " 4097\ninput"),
    "a line has too many words": (" 4096\ninput", " 4096 more\ninput"),
    "a line ends early": ("memory 4096 0 4096", "memory 4096 0"),
    'dtype "float8" is not known': ("input float32", "input float8"),
    "no two digits behind a %": ("float32 0 x", "float32 0 %4"),
    "a tensor is too large": ("float32 0 x", "float32 3 99999999999999 99999999999999 9 x"),
    "a line that is not known": ("output float32 0 y\n", "output float32 0 y\nmore\n"),
    '"x" is not of the program\'s batch': ("gsb_part 0", "gsb_part 2"),
    "its programs are of different models": (_BLOCK, _BLOCK + _BLOCK),
}


def test_damaged_descriptors(program: Path, tmp_path: Path) -> None:
    paths = []
    for old, new in _DAMAGES.values():
        paths.append(tmp_path / f"{len(paths)}.so")
        by_hand(paths[-1], (HEADER + _BLOCK).replace(old, new, 1), _FUNCTION)
    for path, said, (code, sentence) in zip(paths, _DAMAGES, loaded(program, *paths), strict=True):
        assert code == "damaged"
        assert sentence.startswith(f"{path}: the descriptor is damaged ({said}")


def test_noise_in_the_section(small: Path, sanitized: Sanitized, tmp_path: Path) -> None:
    """Sealed anew, so that nothing but the reader itself stands against it."""
    data, draw, paths = small.read_bytes(), random.Random(1), []
    start = data.index(b"gsb-tvm\0")
    for _ in range(400):
        noisy = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(start + 8, data.index(b"output float32", start) + 20)
            noisy[at] = draw.choice(b"\0\n 09%-x\xff")
        paths.append(tmp_path / f"{len(paths)}.so")
        paths[-1].write_bytes(meta.seal(bytes(noisy)))
    # More memory than there is must be an error of ours here, too.
    before = ["env", "ASAN_OPTIONS=allocator_may_return_null=1"]
    found = loaded(sanitized("program", "address,undefined"), *paths, before=before)
    assert "damaged" in {code for code, _ in found}


def test_a_file_that_is_replaced(tmp_path: Path) -> None:
    """The new code is loaded beside the old, and either is what its session calls."""
    source = tmp_path / "replace.cpp"
    source.write_text(_REPLACE)
    replace = built(source, tmp_path / "replace", by=compiler("g++"))
    first = by_hand(tmp_path / "first.so", HEADER + _BLOCK, _FUNCTION)
    second = by_hand(tmp_path / "second.so", HEADER + _BLOCK, _FUNCTION.replace("*x", "-*x"))
    assert output(replace, first, second, tmp_path / "model.so") == "3 -3 3\n"


_REPLACE = """
#include <cstdio>
#include <gsb_tvm/session.hpp>

int main(int, char** argv) {
  const auto of = [](const gsb_tvm::Session& session) {
    const float x = 3;
    float y = 0;
    session.run({{&x, 1}}, {{&y, 1}});
    return static_cast<double>(y);
  };
  if (std::rename(argv[1], argv[3])) return 2;
  const gsb_tvm::Session first(argv[3]);
  if (std::rename(argv[2], argv[3])) return 2;
  const gsb_tvm::Session second(argv[3]);
  std::printf("%g %g %g\\n", of(first), of(second), of(first));
}
"""


def test_paths_of_every_form(small: Path, program: Path, tmp_path: Path) -> None:
    """A name without a folder is a file here, not a library of the system's."""
    folder = tmp_path / "a b"
    folder.mkdir()
    copies = [folder / "libm.so.6", folder / "model.so"]
    for copy in copies:
        shutil.copy(small, copy)
    before = ["env", "-C", folder]
    paths = ["libm.so.6", "./model.so", copies[1], f"..//{folder.name}/model.so"]
    assert loaded(program, *paths, before=before) == [("loaded", "")] * 4


def test_memory_that_the_system_does_not_give(program: Path, tmp_path: Path) -> None:
    descriptor = HEADER + _BLOCK.replace("memory 4096", f"memory {2**47}")
    path = by_hand(tmp_path / "m.so", descriptor, _FUNCTION)
    sentence = (
        f"m.onnx: a call on 1 threads needs {2**47} bytes of memory, which the system does not "
        "give."
    )
    assert loaded(program, path) == [("memory", sentence)]
