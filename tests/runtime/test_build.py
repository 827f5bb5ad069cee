import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from elftools.elf.elffile import ELFFile
from tvm import relax

from gsb_tvm.dialect.errors import OutputError, ToolchainError
from gsb_tvm.runtime import link
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import Artefact, Code, build, generate, plan
from gsb_tvm.runtime.metadata import SYMBOL, WEIGHTS
from gsb_tvm.runtime.session import load

# What the C library and libm provide to a loaded artefact.
_PROVIDED = {"memset", "memcpy", "expf", "sched_yield"}


def test_reports_size_and_time(artefact: Artefact) -> None:
    assert artefact.size_bytes == artefact.path.stat().st_size
    assert set(artefact.seconds) == {"generate", "link"}
    assert artefact.path.stat().st_mode & 0o100


def test_leaves_only_two_files(artefact: Artefact) -> None:
    assert sorted(os.listdir(artefact.path.parent)) == ["model.json", "model.so"]


def test_needs_only_the_c_library(artefact: Artefact, foreign: Path) -> None:
    for path in (artefact.path, foreign):
        elf = ELFFile(io.BytesIO(path.read_bytes()))
        symbols = elf.get_section_by_name(".dynsym").iter_symbols()
        undefined = {s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF" and s.name}
        assert undefined <= _PROVIDED
        needed = {t.needed for t in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")}
        assert needed <= {"libm.so.6", "libc.so.6"}


def test_carries_no_debug_sections(artefact: Artefact) -> None:
    elf = ELFFile(io.BytesIO(artefact.path.read_bytes()))
    assert not [s.name for s in elf.iter_sections() if s.name.startswith(".debug")]


def test_data_is_mapped_read_only_and_aligned(artefact: Artefact) -> None:
    elf = ELFFile(io.BytesIO(artefact.path.read_bytes()))
    for symbol in elf.get_section_by_name(".dynsym").iter_symbols():
        if symbol.name in (WEIGHTS, SYMBOL):
            section = elf.get_section(symbol["st_shndx"])
            assert symbol["st_value"] % 64 == 0
            assert section["sh_flags"] & 1 == 0


def test_scheduled_kernels_are_left_alone(popcount, native) -> None:
    planned = plan(popcount.module, native)
    assert tvm_ffi.structural_equal(
        planned["popmm"].without_attr("global_symbol"),
        popcount.module["popmm"].without_attr("global_symbol"),
    )


def test_the_callers_module_is_left_alone(popcount, native) -> None:
    before = popcount.module.script()
    generate(popcount.module, native)
    assert popcount.module.script() == before


def test_texts_of_the_kernels(popcount_code: Code) -> None:
    assert "define" in popcount_code.texts["model.ll"]()
    assert "popcnt" in popcount_code.texts["model.s"]()


def test_a_module_without_kernels(native, views, tmp_path: Path) -> None:
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(x)
        builder.emit_func_output(y)
    metadata = views.claiming(
        native,
        inputs=(meta.Tensor("x", (4,), "float32"),),
        outputs=(meta.Tensor("y", (4,), "float32"),),
    )
    module = load(build(builder.get(), native, tmp_path / "m.so", metadata).path)
    (out,) = module.run([np.arange(4, dtype=np.float32)])
    assert out.tolist() == [0, 1, 2, 3]


def test_nothing_is_written_where_nothing_can_be(popcount, native) -> None:
    with pytest.raises(OutputError, match=r"/proc/m\.so: cannot be written"):
        build(popcount.module, native, Path("/proc/m.so"), popcount.metadata(native))


def test_without_a_linker_the_objects_are_kept(
    popcount, a72, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "find", lambda _: [])
    with pytest.raises(ToolchainError) as caught:
        build(popcount.module, a72, tmp_path / "m.so", popcount.metadata(a72))
    text = str(caught.value)
    assert text.startswith("no linker for aarch64-linux-gnu is installed. Install one of: ")
    assert text.endswith(f"in {tmp_path / 'm.o'} and {tmp_path / 'm.data.o'}.")
    assert sorted(os.listdir(tmp_path)) == ["m.data.o", "m.o"]
    for name in os.listdir(tmp_path):
        with (tmp_path / name).open("rb") as file:
            assert ELFFile(file)["e_machine"] == "EM_AARCH64"


_SCRIPT = """
import hashlib, os, resource, sys
from pathlib import Path
import numpy as np
from tvm import relax
from gsb_tvm.dialect.errors import GsbError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import build
from gsb_tvm.targets import resolve

x = relax.Var("x", relax.TensorType((8, 64), "float32"))
builder = relax.BlockBuilder()
with builder.function("main", [x]):
    with builder.dataflow():
        w = relax.const(np.arange(64 * 4096, dtype=np.float32).reshape(64, 4096))
        y = builder.emit(relax.op.nn.softmax(relax.op.matmul(x, w)))
        y = builder.emit_output(relax.op.add(y, y))
    builder.emit_func_output(y)
module = builder.get()
profile = resolve("llvm -mcpu=haswell")
metadata = meta.Metadata(
    versions=meta.versions(), target=meta.target_of(profile), model=meta.Model("m", ""),
    programs=(
        meta.Program(
            inputs=(meta.Tensor("x", (8, 64), "float32"),),
            outputs=(meta.Tensor("y", (8, 4096), "float32"),),
        ),
    ),
)
out = Path(sys.argv[1])
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    if limit > 100_000:  # get past the trial for room
        os.posix_fallocate = lambda *_: None
    try:
        built = build(module, profile, out, metadata)
        written = built.path.read_bytes() + built.metadata_path.read_bytes()
        print(len(built.path.read_bytes()), hashlib.sha256(written).hexdigest())
    except GsbError as err:
        print(f"{type(err).__name__}: {err}")
"""


def run_script(tmp_path: Path, out: Path, *limits: int, **environment: str) -> list[str]:
    """Build in a process of its own under each limit of file size; return what it printed."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(out), *map(str, limits)],
        cwd=out.parent,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_equal_builds_give_equal_bytes(tmp_path: Path) -> None:
    digests = set()
    for seed, folder in (("0", "a"), ("77", "another folder")):
        out = tmp_path / folder / "m.so"
        out.parent.mkdir()
        digests |= set(run_script(tmp_path, out, -1, -1, PYTHONHASHSEED=seed))
    assert len(digests) == 1


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    # Limits that stop the kernels, the data object of 1.05 MB, and the linker, which adds some kB.
    limits = [2_000, 600_000, 1_060_000]
    out, scratch = tmp_path / "out" / "m.so", tmp_path / "scratch"
    out.parent.mkdir()
    scratch.mkdir()
    said = run_script(tmp_path, out, *limits, TMPDIR=str(scratch))
    assert len(said) == len(limits)
    assert all(line.startswith("OutputError: ") for line in said)
    assert os.listdir(out.parent) == []
    assert os.listdir(scratch) == []


def test_a_size_limit_on_the_output_alone(popcount, native, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("gsb_tvm.runtime.outfile.os.fsync", fail)
    with pytest.raises(OutputError, match="no space is left on the device"):
        build(popcount.module, native, tmp_path / "m.so", popcount.metadata(native))
    assert os.listdir(tmp_path) == []
