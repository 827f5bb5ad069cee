"""Finding gsb_tvm::runtime by CMake and pkg-config, here and when crossing."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gsb_tvm.dialect.versions import PACKAGE
from gsb_tvm.runtime.cpp_folder import CPP

PROJECT = """\
cmake_minimum_required(VERSION 3.13)
project(embed LANGUAGES CXX)
find_package(gsb_tvm @VERSION@ CONFIG REQUIRED)
find_package(gsb_tvm CONFIG REQUIRED)
message(STATUS "found ${gsb_tvm_VERSION}")
add_executable(embed main.cpp other.cpp)
target_link_libraries(embed PRIVATE gsb_tvm::runtime)
"""
# Two sources that include the headers: they must define nothing twice, and need no CUDA.
MAIN = """\
#include <gsb_tvm/cuda_session.hpp>
#include <gsb_tvm/dlpack.hpp>
#include <gsb_tvm/session.hpp>
#include <cstdio>
std::size_t other(const char* path);
int main(int, char** argv) {
  try {
    return static_cast<int>(gsb_tvm::Session(argv[1]).inputs().size() + other(argv[1]));
  } catch (const gsb_tvm::Error& error) {
    std::puts(error.what());
  }
}
"""
OTHER = """\
#include <gsb_tvm/cuda_session.hpp>
#include <gsb_tvm/dlpack.hpp>
#include <gsb_tvm/session.hpp>
std::size_t other(const char* path);
std::size_t other(const char* path) {
  return gsb_tvm::Session(path).outputs().size() + gsb_tvm::CudaSession(path).outputs().size();
}
"""
SAYS = "none.so: cannot be read (No such file or directory).\n"
TOOLCHAIN = """\
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
"""


def tool(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def done(*command: object, expected: int = 0) -> str:
    words = [str(word) for word in command]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == expected, ran.stdout[-2000:] + ran.stderr[-4000:]
    return ran.stdout + ran.stderr


def project(folder: Path, version: str = PACKAGE) -> Path:
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(PROJECT.replace("@VERSION@", version))
    (folder / "main.cpp").write_text(MAIN)
    (folder / "other.cpp").write_text(OTHER)
    return folder


def configured(source: Path, build: Path, *options: str, expected: int = 0) -> str:
    return done(tool("cmake"), "-S", source, "-B", build, *options, expected=expected)


def test_natively(tmp_path: Path) -> None:
    tool("g++")
    source, build = project(tmp_path / "source"), tmp_path / "build"
    said = configured(source, build, f"-Dgsb_tvm_DIR={CPP / 'cmake'}")
    assert f"found {PACKAGE}" in said
    done(tool("cmake"), "--build", build)
    assert done(build / "embed", "none.so") == SAYS


def test_by_a_prefix(tmp_path: Path) -> None:
    tool("g++")
    source = project(tmp_path / "source")
    configured(source, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={CPP / 'cmake'}")


def test_crossing_with_a_sysroot_only(tmp_path: Path) -> None:
    tool("aarch64-linux-gnu-g++")
    source, build = project(tmp_path / "source"), tmp_path / "build"
    (tmp_path / "arm.cmake").write_text(TOOLCHAIN)
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={tmp_path / 'arm.cmake'}"
    configured(source, build, toolchain, f"-Dgsb_tvm_DIR={CPP / 'cmake'}")
    done(tool("cmake"), "--build", build)
    root = ("-L", "/usr/aarch64-linux-gnu")
    assert done(tool("qemu-aarch64"), *root, build / "embed", "none.so") == SAYS


def test_a_later_version_is_not_found(tmp_path: Path) -> None:
    tool("g++")
    source = project(tmp_path / "source", "99.0")
    said = configured(source, tmp_path / "build", f"-Dgsb_tvm_DIR={CPP / 'cmake'}", expected=1)
    assert f"gsb_tvm-config.cmake, version: {PACKAGE}" in said


def test_pkg_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = project(tmp_path / "source")
    monkeypatch.setenv("PKG_CONFIG_PATH", str(CPP / "pkgconfig"))
    assert done(tool("pkg-config"), "--modversion", "gsb_tvm") == f"{PACKAGE}\n"
    flags = done(tool("pkg-config"), "--cflags", "--libs", "gsb_tvm")
    sources = [source / "main.cpp", source / "other.cpp"]
    done(tool("g++"), "-std=c++17", *sources, *flags.split(), "-o", tmp_path / "embed")
    assert done(tmp_path / "embed", "none.so") == SAYS
