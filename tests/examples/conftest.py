"""Building the examples with CMake, as their README says."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from gsb_tvm.driver import Options, compile_model
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime.cpp_folder import CPP
from gsb_tvm.targets import resolve

EXAMPLES = Path(__file__).parents[2] / "examples"


def done(*command: object, expected: int = 0, env: Mapping[str, str] | None = None) -> str:
    """What a command prints; the test fails where its status differs."""
    words = [str(word) for word in command]
    ran = subprocess.run(words, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert ran.returncode == expected, (
        f"{' '.join(words)}\n{ran.stdout[-2000:]}{ran.stderr[-4000:]}"
    )
    return ran.stdout if expected == 0 else ran.stderr


def cmake() -> str:
    found = shutil.which("cmake")
    if found is None or shutil.which("g++") is None:
        pytest.skip("cmake or g++ is not installed")
    return found


def build(source: Path, folder: Path, *definitions: str) -> Path:
    """Configure and build; warnings of ours are errors."""
    flags = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror"
    strict = [f"-DCMAKE_{language}_FLAGS={flags}" for language in ("C", "CXX")]
    done(cmake(), "-S", source, "-B", folder, *strict, *definitions)
    done(cmake(), "--build", folder)
    return folder


def needs_stb() -> None:
    if not any(
        Path(root, "stb/stb_image.h").exists() for root in ("/usr/include", "/usr/local/include")
    ):
        pytest.skip("stb_image.h is not installed (Debian: apt install libstb-dev)")


def compiled(out: Path, target: str, c_library: str | None = None) -> Path:
    """The demo model, compiled."""
    compile_model(model_path(), resolve(target), Options(out, verify=False, c_library=c_library))
    return out


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "six.ppm"
    done(sys.executable, EXAMPLES / "image/picture.py", path)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("model") / "model.so", "native")


def session_package() -> str:
    return f"-Dgsb_tvm_DIR={CPP / 'cmake'}"


def first_words(lines: str) -> Sequence[str]:
    """What is said of each picture, without the picture's name."""
    return [line.partition(": ")[2] for line in lines.splitlines()]
