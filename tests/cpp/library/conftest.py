"""The demo model as a C library, an image, and the logits of it."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime.toolchains import Toolchain, find
from gsb_tvm.targets import resolve

HERE = Path(__file__).parent
STRICT = ("-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")


@dataclass(frozen=True)
class Files:
    """An image and its logits as raw numbers."""

    image: Path
    logits: Path


def emitted(folder: Path, name: str, target: str, model: Path | None = None) -> Path:
    """Write a C library of the demo model, or another."""
    options = Options(folder / name, verify=False, c_library=name)
    compile_model(model or model_path(), resolve(target), options)
    return folder / name


def built(command: Sequence[str], out: Path) -> Path:
    """The program that a compiler's command makes; the test fails where it does not."""
    done = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return out


def compiler(target: str) -> Toolchain:
    """What compiles C with the headers of a target; the test is skipped without."""
    tools = [tool for tool in find(resolve(target)) if tool.compiler]
    if not tools:
        pytest.skip(f"no C compiler for {target} is installed")
    return tools[0]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler("native")
    return emitted(tmp_path_factory.mktemp("library"), "demo", "native")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("numbers")
    module = gsb_tvm.build(model_path())
    image = np.random.default_rng(3).random((1, 1, 8, 8), np.float32)
    found = Files(folder / "image.bin", folder / "logits.bin")
    image.tofile(found.image)
    module(image).tofile(found.logits)
    return found
