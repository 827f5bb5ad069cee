"""Programs around gsb_tvm::Session, the demo as an artefact, and artefacts made by hand."""

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.cpp_folder import CPP
from gsb_tvm.runtime.elf import Blob, data_object
from gsb_tvm.runtime.link import link_shared
from gsb_tvm.targets import resolve

HERE = Path(__file__).parent
STRICT = (
    "-std=c++17 -pedantic -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Werror".split()
)
SANITIZERS = {
    "address,undefined": ["-g1", "-fno-sanitize-recover=all"],
    "thread": ["-g1"],
}
LIBRARIES = ("-pthread", "-ldl")
ERRORS = "file damaged version architecture cpu loader argument memory threads gpu driver".split()
"""Names of gsb_tvm::ErrorCode, in its order."""


def compiler(*names: str) -> str:
    """The first of some compilers that is installed; the test is skipped without."""
    for name in names:
        if path := shutil.which(name):
            return path
    return pytest.skip(f"none of {', '.join(names)} is installed")


def built(source: Path, out: Path, *flags: str, by: str = "g++") -> Path:
    """Compile a program; the test fails where the compiler has anything to say."""
    words = [by, *STRICT, *flags, f"-I{CPP / 'include'}", str(source), "-o", str(out), *LIBRARIES]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("the compiler has no such sanitizer")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return out


def output(*command: object, expected: int = 0, env: Mapping[str, str] | None = None) -> str:
    """What a program prints; the test fails where its status differs."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=env, capture_output=True, text=True, errors="replace", timeout=500, check=False
    )
    assert done.returncode == expected, done.stdout[-1000:] + done.stderr[-4000:]
    return done.stdout if expected == 0 else done.stderr


def loaded(program: Path, *paths: Path, before: Sequence[str] = ()) -> list[tuple[str, str]]:
    """For each artefact the error's code and sentence; "loaded" where there is none."""
    lines = output(*before, program, "load", *paths).splitlines()
    assert len(lines) == len(paths)
    return [*map(error, lines)]


def error(line: str) -> tuple[str, str]:
    """Code and sentence of a line that a program prints of an artefact."""
    number, _, sentence = line.partition(" ")
    return (ERRORS[int(number)], sentence) if sentence else (number, "")


@dataclass(frozen=True)
class Demo:
    """The demo compiled for this machine; an image and its logits as raw numbers."""

    path: Path
    image: Path
    logits: Path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    path = folder / "model.so"
    compile_model(model_path(), resolve("native"), Options(path, verify=False))
    image = np.random.default_rng(3).random((1, 1, 8, 8), np.float32)
    image.tofile(folder / "image.bin")
    gsb_tvm.load(path)(image).tofile(folder / "logits.bin")
    return Demo(path, folder / "image.bin", folder / "logits.bin")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("program") / "program"
    return built(HERE / "program.cpp", out, by=compiler("g++"))


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Compile a source with a sanitizer, once."""
    made: dict[tuple[str, str], Path] = {}

    def build(name: str, sanitizer: str) -> Path:
        if (name, sanitizer) not in made:
            out = tmp_path_factory.mktemp("sanitized") / name
            flags = [f"-fsanitize={sanitizer}", *SANITIZERS[sanitizer]]
            by = compiler("g++")
            made[name, sanitizer] = built(HERE / f"{name}.cpp", out, *flags, by=by)
        return made[name, sanitizer]

    return build


HEADER = """\
compiler 0.0.1
target of the test
cpu this
arch x86_64
model m.onnx
alignment 64
weights gsb_weights
"""


def by_hand(path: Path, descriptor: str, functions: str = "") -> Path:
    """An artefact whose functions are written in C, with any descriptor."""
    profile = resolve("native")
    if profile.arch != "x86_64":
        pytest.skip("is of x86-64")
    source, compiled = path.with_suffix(".c"), path.with_suffix(".o")
    source.write_text(f"#include <stdint.h>\n{functions}\n")
    output(compiler("gcc", "clang"), "-O1", "-fPIC", "-c", source, "-o", compiled)
    metadata = meta.Metadata(
        versions=meta.versions(),
        target=meta.target_of(profile),
        model=meta.Model("m.onnx", "0" * 64),
        programs=(meta.Program(inputs=(), outputs=()),),
    )
    blobs = [
        Blob(".rodata", meta.WEIGHTS, np.arange(1, 5, dtype=np.float32).tobytes()),
        Blob(meta.SECTION, meta.SYMBOL, meta.section(metadata, descriptor.encode())),
    ]
    objects = [compiled.read_bytes(), data_object(profile.arch, blobs)]
    path.write_bytes(meta.seal(link_shared(profile, objects, path.parent)))
    return path


def changed(artefact: Path, path: Path, old: bytes, new: bytes) -> Path:
    """A sealed copy of an artefact with some bytes changed."""
    data = artefact.read_bytes()
    assert data.count(old) >= 1
    assert len(old) == len(new)
    path.write_bytes(meta.seal(data.replace(old, new)))
    return path
