import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from gsb_tvm.dialect.errors import OutputError, ToolchainError, UsageError
from gsb_tvm.runtime import compiling
from gsb_tvm.runtime.build import Code, generate
from gsb_tvm.runtime.c_library import MARKER, CLibrary, c_library, sources
from gsb_tvm.runtime.c_sources import fill, values
from gsb_tvm.runtime.cpp_folder import CPP
from gsb_tvm.runtime.metadata import Memory, Metadata
from gsb_tvm.runtime.toolchains import Toolchain, find
from gsb_tvm.targets import resolve
from tests.runtime.conftest import Case

EXPECTED = [
    "README.md",
    "example/CMakeLists.txt",
    "example/main.c",
    "gsb-tvm.json",
    "include/small.h",
    "include/small.hpp",
    "lib/cmake/small/small-config-version.cmake",
    "lib/cmake/small/small-config.cmake",
    "lib/libsmall.a",
    "lib/pkgconfig/small.pc",
]


@pytest.fixture(scope="module")
def code(popcount: Case, native) -> Code:
    return generate(popcount.module, native, "small", launches=False)


@pytest.fixture(scope="module")
def library(code: Code, popcount: Case, native) -> CLibrary:
    return c_library(code, native, code.described(popcount.metadata(native)))


def written(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_folder(library: CLibrary, tmp_path: Path) -> None:
    library.write(tmp_path / "out")
    assert written(tmp_path / "out") == EXPECTED
    assert written(tmp_path) == [f"out/{name}" for name in EXPECTED]
    metadata = msgspec.json.decode((tmp_path / "out" / MARKER).read_bytes(), type=Metadata)
    assert metadata.program.memory == library.metadata.program.memory


def test_no_placeholder_and_no_path_of_this_machine_is_left(library: CLibrary) -> None:
    for name, data in library.files.items():
        assert b"@{" not in data, name
        assert str(Path.cwd()).encode() not in data, name
        assert b"/tmp/" not in data, name


def test_equal_arguments_give_equal_bytes(library: CLibrary, code: Code, native) -> None:
    again = c_library(code, native, library.metadata)
    assert again.files == library.files


def test_an_old_folder_gives_way_and_others_do_not(library: CLibrary, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    library.write(out)
    (out / "lib/left").write_text("from before")
    library.write(out)
    assert written(out) == EXPECTED
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("dear")
    with pytest.raises(OutputError, match=r"home: there is a folder with other files\."):
        library.write(home)
    with pytest.raises(OutputError, match=r"thesis.tex: there is a file\."):
        library.write(home / "thesis.tex")
    with pytest.raises(OutputError, match="no/out: cannot be written: the folder does not exist"):
        library.write(tmp_path / "no" / "out")
    assert written(tmp_path) == ["home/thesis.tex", *(f"out/{name}" for name in EXPECTED)]


def test_a_full_disk_leaves_the_old_folder(library: CLibrary, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    library.write(out)
    before = {name: (out / name).read_bytes() for name in EXPECTED}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="out: cannot be written: no space is left"):
        library.write(out)
    assert {name: (out / name).read_bytes() for name in written(out)} == before
    assert written(tmp_path) == [f"out/{name}" for name in EXPECTED]


@pytest.mark.parametrize(
    ("stopped", "error"),
    [("new", OSError(5, "Input/output error")), ("old", KeyboardInterrupt())],
)
def test_a_failed_rename_leaves_the_old_folder(
    library: CLibrary, tmp_path: Path, monkeypatch, stopped: str, error: BaseException
) -> None:
    out = tmp_path / "out"
    library.write(out)
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(source).name == "new" == stopped:
            raise error
        real(source, target)
        if Path(target).name == "old" == stopped:
            raise error

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(OutputError if stopped == "new" else KeyboardInterrupt):
        library.write(out)
    assert written(tmp_path) == [f"out/{name}" for name in EXPECTED]


def test_without_a_compiler(code: Code, library: CLibrary, native, monkeypatch) -> None:
    monkeypatch.setattr(compiling, "find", lambda _: [Toolchain("ld.lld", ("ld.lld",))])
    with pytest.raises(ToolchainError, match=r"no C compiler for x86_64-linux-gnu is installed\."):
        c_library(code, native, library.metadata)


def test_a_compiler_of_another_c_library_is_not_used(
    code: Code, library: CLibrary, monkeypatch
) -> None:
    musl = resolve("llvm -mtriple=x86_64-linux-musl")
    host = [tool for tool in find(resolve("native")) if tool.name != "ziglang"]
    monkeypatch.setattr(compiling, "find", lambda _: host)
    with pytest.raises(ToolchainError, match="no C compiler for x86_64-linux-musl"):
        c_library(code, musl, library.metadata)


def test_a_compiler_that_cannot_start(
    code: Code, library: CLibrary, native, tmp_path: Path, monkeypatch
) -> None:
    broken = tmp_path / "gcc"
    broken.write_bytes(b"\0")
    broken.chmod(0o755)
    tool = Toolchain("gcc", (str(broken),), (str(broken),), (str(broken),))
    monkeypatch.setattr(compiling, "find", lambda _: [tool])
    with pytest.raises(ToolchainError, match=r"gcc: cannot be started \(Exec format error\)"):
        c_library(code, native, library.metadata)


@pytest.mark.parametrize("target", ["native", "llvm -mcpu=cortex-a72"])
def test_ziglang_builds_it(target: str, popcount: Case, tmp_path: Path, monkeypatch) -> None:
    profile = resolve(target)
    zig = [tool for tool in find(profile) if tool.name == "ziglang"]
    if not zig:
        pytest.skip("ziglang is not installed")
    monkeypatch.setattr(compiling, "find", lambda _: zig)
    code = generate(popcount.module, profile, "small", launches=False)
    made = c_library(code, profile, code.described(popcount.metadata(profile)))
    archive = tmp_path / "libsmall.a"
    archive.write_bytes(made.files["lib/libsmall.a"])
    members = subprocess.run(
        [shutil.which("ar") or pytest.skip("no ar"), "t", str(archive)],
        capture_output=True,
        text=True,
        check=True,
    )
    names = ["small_run.c.o", "small_context.c.o", "kernels.o", "weights.o"]
    assert members.stdout.split() == names


def test_names_from_a_model_stay_in_strings_and_comments(popcount: Case, native) -> None:
    (x,) = popcount.metadata(native).program.inputs
    renamed = msgspec.structs.replace(x, name='*/ #error "\\n\n')
    metadata = popcount.claiming(native, inputs=(renamed,))
    evil = msgspec.structs.replace(
        metadata, model=msgspec.structs.replace(metadata.model, name='m*/ "\\\n#error é.onnx')
    )
    texts = sources(evil, "small")
    assert "#error" not in texts["small.h"]
    assert '"*/ #error \\042\\134n\\012"' in texts["small_run.c"]


# Words of C23 and C++20, and what our sources and the C library call theirs.
AWKWARD = """
    argc argv c call check concept context fail first given i in index inputs out outputs printf
    read_file requires run_on_threads status std threads typeof
""".split()


def test_any_name_of_a_tensor_compiles(popcount: Case, native, tmp_path: Path) -> None:
    gcc, gxx = (shutil.which(name) or pytest.skip(f"no {name}") for name in ("gcc", "g++"))
    first = popcount.metadata(native).program.inputs[0]
    tensors = tuple(msgspec.structs.replace(first, name=name) for name in AWKWARD)
    for kind in ("inputs", "outputs"):
        metadata = popcount.claiming(native, **{kind: tensors})
        filled = values(metadata, "small")
        for file, text in sources(metadata, "small").items():
            (tmp_path / file).write_text(text)
        for template in ("emulate.c", "model.hpp"):
            (tmp_path / template).write_text(fill(template, filled))
        (tmp_path / "main.c").write_text(fill("example/main.c", filled))
        options = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{CPP}/include"]
        compiled = [tmp_path / name for name in ("small_run.c", "small_context.c")]
        compiled += [tmp_path / name for name in ("emulate.c", "main.c")]
        subprocess.run([gcc, "-std=gnu11", *options, *compiled], check=True)
        header = [f"-I{tmp_path}", "-x", "c++", tmp_path / "model.hpp"]
        subprocess.run([gxx, "-std=c++20", *options, *header], check=True)


def test_a_call_that_needs_too_much_memory(popcount: Case, native) -> None:
    metadata = popcount.claiming(native, memory=Memory(2**31, 0))
    with pytest.raises(UsageError, match="a call needs 2147483648 bytes of memory"):
        sources(metadata, "small")
