import io
import stat
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from gsb_tvm.dialect.errors import OutputError, ToolchainError
from gsb_tvm.runtime import link, toolchains
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import Code, data_blobs
from gsb_tvm.runtime.elf import data_object
from gsb_tvm.runtime.link import link_program, link_shared
from gsb_tvm.runtime.session import load
from gsb_tvm.runtime.toolchains import Toolchain, find, missing
from gsb_tvm.targets import resolve

_FAST = [tool.name for tool in find(resolve("native")) if tool.name != "ziglang"]


def script(path: Path, text: str) -> Toolchain:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Toolchain(path.name, (str(path),), (str(path),))


def objects(code: Code, case, profile) -> list[bytes]:
    metadata = code.described(case.metadata(profile))
    return [code.kernels, data_object(profile.arch, data_blobs(code.constants, metadata))]


@pytest.mark.parametrize("name", _FAST)
def test_each_linker_of_the_host(
    name: str, popcount, popcount_code: Code, native, tmp_path: Path, monkeypatch
) -> None:
    (tool,) = (tool for tool in find(native) if tool.name == name)
    monkeypatch.setattr(link, "find", lambda _: [tool])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    library = link_shared(native, objects(popcount_code, popcount, native), scratch)
    path = tmp_path / "m.so"
    path.write_bytes(meta.seal(library))
    assert load(path)(*popcount.inputs).shape == (16, 10)
    assert binds_lazily(library)


def binds_lazily(library: bytes) -> bool:
    """Whether functions of other libraries are looked up when they are needed."""
    tags = list(ELFFile(io.BytesIO(library)).get_section_by_name(".dynamic").iter_tags())
    flags = {"DT_FLAGS": 8, "DT_FLAGS_1": 1}  # DF_BIND_NOW, DF_1_NOW
    now = any(t.entry.d_val & flags.get(t.entry.d_tag, 0) for t in tags)
    return not now and all(t.entry.d_tag != "DT_BIND_NOW" for t in tags)


@pytest.mark.slow
@pytest.mark.skipif("ziglang" not in [t.name for t in find(resolve("native"))], reason="no zig")
def test_ziglang_links(popcount, popcount_code: Code, native, tmp_path: Path, monkeypatch) -> None:
    (tool,) = (tool for tool in find(native) if tool.name == "ziglang")
    monkeypatch.setattr(link, "find", lambda _: [tool])
    library = link_shared(native, objects(popcount_code, popcount, native), tmp_path)
    path = tmp_path / "m.so"
    path.write_bytes(meta.seal(library))
    assert load(path)(*popcount.inputs).shape == (16, 10)
    assert binds_lazily(library)


def test_cross_linkers_keep_the_machine(a72, tmp_path: Path, monkeypatch) -> None:
    tools = [tool for tool in find(a72) if tool.name != "ziglang"]
    if not tools:
        pytest.skip("no linker for aarch64")
    for tool in tools:
        monkeypatch.setattr(link, "find", lambda _, tool=tool: [tool])
        folder = tmp_path / tool.name
        folder.mkdir()
        library = link_shared(a72, [data_object("aarch64", [])], folder)
        assert ELFFile(io.BytesIO(library))["e_machine"] == "EM_AARCH64"


def test_the_order_of_preference(a72, native, tmp_path: Path, monkeypatch) -> None:
    for name in ("gcc", "clang", "aarch64-linux-gnu-gcc", "ld.lld-19", "ld.lld-14"):
        script(tmp_path / name, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert [tool.name for tool in find(native)] == ["gcc", "ld.lld"]
    assert [tool.name for tool in find(a72)] == ["aarch64-linux-gnu-gcc", "ld.lld"]
    assert find(a72)[1].command == (str(tmp_path / "ld.lld-19"),)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    zig = find(a72)[-1]
    assert zig.command[1:] == ("-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28")
    assert zig.program[-1] == "aarch64-linux-musl"


def test_no_linker_at_all(a72, native, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for profile in (a72, native):
        with pytest.raises(ToolchainError) as caught:
            link_shared(profile, [], tmp_path)
        assert str(caught.value) == missing(profile)
    assert missing(a72) == (
        "no linker for aarch64-linux-gnu is installed. Install one of: aarch64-linux-gnu-gcc "
        "(Debian: apt install gcc-aarch64-linux-gnu), lld (apt install lld), "
        "or ziglang (pip install ziglang)."
    )
    assert missing(native).startswith("no linker is installed. Install gcc")


def test_a_failing_linker_gives_way_to_the_next(native, tmp_path: Path, monkeypatch) -> None:
    broken = script(tmp_path / "broken", "echo no >&2; exit 1")
    working = find(native)[0]
    monkeypatch.setattr(link, "find", lambda _: [broken, working])
    assert link_shared(native, [data_object(native.arch, [])], tmp_path)[:4] == b"\x7fELF"


def test_what_a_linker_says_is_trimmed(native, tmp_path: Path, monkeypatch) -> None:
    text = f"for i in 1 2 3 4 5 6 7 8 9 10; do echo {tmp_path}/x.o: bad line $i >&2; done; exit 1"
    monkeypatch.setattr(link, "find", lambda _: [script(tmp_path / "chatty", text)])
    with pytest.raises(ToolchainError) as caught:
        link_shared(native, [data_object(native.arch, [])], tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("chatty: x.o: bad line 1")
    assert lines[-1] == "... and 2 lines more"
    assert len(lines) == 9


def test_a_linker_that_hangs(native, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(toolchains, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(link, "find", lambda _: [script(tmp_path / "slow", "exec sleep 60")])
    with pytest.raises(ToolchainError, match=r"slow: gave no result within 0\.2 s"):
        link_shared(native, [data_object(native.arch, [])], tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        "ld: final link failed: No space left on device",
        "ld terminated with signal 25 [File size limit exceeded]",
        "ld.lld: error: failed to open linked.so: File too large",
    ],
)
def test_a_linker_without_room(native, tmp_path: Path, monkeypatch, said: str) -> None:
    text = f"echo '{said}' >&2; exit 1"
    monkeypatch.setattr(link, "find", lambda _: [script(tmp_path / "full", text)])
    with pytest.raises(OutputError, match="no room for temporary files"):
        link_shared(native, [data_object(native.arch, [])], tmp_path)


def test_a_linker_that_cannot_start(native, tmp_path: Path, monkeypatch) -> None:
    tool = Toolchain("gone", (str(tmp_path / "gone"),), ())
    monkeypatch.setattr(link, "find", lambda _: [tool])
    with pytest.raises(ToolchainError, match=r"gone: cannot be started \(No such file"):
        link_shared(native, [data_object(native.arch, [])], tmp_path)


def test_programs_need_a_compiler(native, tmp_path: Path, monkeypatch) -> None:
    host = find(native)[:1]
    monkeypatch.setattr(link, "find", lambda _: [Toolchain("ld.lld", ("ld.lld",), ())])
    with pytest.raises(ToolchainError, match=r"no C compiler for x86_64-linux-gnu is installed\."):
        link_program(native, [], tmp_path / "p", tmp_path)
    monkeypatch.setattr(link, "find", lambda _: host)
    source = tmp_path / "p.c"
    source.write_text("int main(void) { return }")
    with pytest.raises(ToolchainError, match="error"):
        link_program(native, [source], tmp_path / "p", tmp_path)
