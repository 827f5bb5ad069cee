import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tvm import relax

from gsb_tvm.dialect.errors import ToolchainError, VerifyError
from gsb_tvm.runtime import emulate
from gsb_tvm.runtime.build import Code, build, generate
from gsb_tvm.runtime.c_library import sources
from gsb_tvm.runtime.emulate import Emulator, _stop, command, skip_reason
from gsb_tvm.runtime.session import load
from gsb_tvm.runtime.toolchains import find
from gsb_tvm.targets import resolve

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-aarch64") is None or not [t for t in find(resolve("llvm -mcpu=cortex-a72"))],
    reason="qemu-aarch64 or a cross compiler is missing",
)


@pytest.mark.parametrize("name", ["popcount", "views", "kinds"])
def test_a_program_equals_the_shared_library(name, request, native, tmp_path: Path) -> None:
    case = request.getfixturevalue(name)
    metadata = case.metadata(native)
    built = build(case.module, native, tmp_path / "m.so", metadata)
    with Emulator(built.code, native, metadata) as program:
        for _ in range(2):
            got = program.run(case.inputs)
    for a, b in zip(got, load(built.path).run(case.inputs), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


@needs_qemu
@pytest.mark.parametrize("name", ["popcount", "views", "kinds"])
@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a53"])
def test_foreign_code_gives_the_reference(name, cpu: str, request) -> None:
    case, profile = request.getfixturevalue(name), resolve(f"llvm -mcpu={cpu}")
    code = generate(case.module, profile)
    with Emulator(code, profile, case.metadata(profile)) as program:
        got = program.run(case.inputs)
    for a, b in zip(got, case.outputs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


@needs_qemu
def test_an_instruction_the_cpu_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = resolve("llvm -mtriple=aarch64-linux-gnu -mattr=+fullfp16")
    x = relax.Var("x", relax.TensorType((64,), "float16"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(builder.emit(relax.op.multiply(relax.op.add(x, x), x)))
        builder.emit_func_output(y)
    code = generate(builder.get(), profile)
    metadata = fp16_metadata(profile)
    words = command(profile)
    with Emulator(code, profile, metadata) as program:
        (got,) = program.run([np.full(64, 2, np.float16)])
    assert got.tolist() == [8.0] * 64
    monkeypatch.setattr(emulate, "command", lambda _: (*words[:-1], "cortex-a53"))
    with Emulator(code, profile, metadata) as program:
        with pytest.raises(VerifyError, match=r"generic, and this CPU lacks (asimdhp|fphp)\."):
            program.run([np.zeros(64, np.float16)])


def test_how_a_program_stopped() -> None:
    assert _stop(-signal.SIGILL) == "the code holds an instruction that this CPU lacks"
    assert _stop(128 + signal.SIGSEGV) == "the code accessed memory that is not its own"
    assert _stop(5) == "the program ended with 5"


def fp16_metadata(profile):
    from gsb_tvm.runtime import metadata as meta

    spec = meta.Tensor("x", (64,), "float16")
    return meta.Metadata(
        versions=meta.versions(),
        target=meta.target_of(profile),
        model=meta.Model("m", ""),
        programs=(meta.Program(inputs=(spec,), outputs=(spec,)),),
    )


def test_the_host_needs_no_emulator(native) -> None:
    assert command(native) == ()
    assert skip_reason(native) == ""


@needs_qemu
def test_the_model_of_the_emulated_cpu(a72) -> None:
    assert command(a72)[1:] == ("-cpu", "cortex-a72")
    added = resolve("llvm -mcpu=cortex-a72 -mattr=+dotprod")
    assert command(added)[1:] == ("-cpu", "max")
    assert command(resolve("llvm -mcpu=apple-m1"))[1:] == ("-cpu", "max")


def test_without_qemu_it_is_skipped(a72, popcount, popcount_code: Code, monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert skip_reason(a72) == (
        "qemu-user not found (Debian: apt install qemu-user; looked for qemu-aarch64)"
    )
    with pytest.raises(ToolchainError, match=r"cannot run code for cortex-a72: qemu-user not"):
        Emulator(popcount_code, a72, popcount.metadata(a72))


def test_a_program_asks_for_the_tiles_it_uses(popcount) -> None:
    def run(cpu: str) -> str:
        return sources(popcount.metadata(resolve(f"llvm -mcpu={cpu}")), "gsb")["gsb_run.c"]

    assert "gsb_cpu_allow_tiles()" in run("sapphirerapids")
    assert "gsb_cpu_allow_tiles()" not in run("skylake-avx512")


def test_what_no_emulator_has_is_named(monkeypatch) -> None:
    monkeypatch.setattr("gsb_tvm.runtime.emulate.missing_here", lambda _: ["amx_tile", "amx_int8"])
    assert skip_reason(resolve("llvm -mcpu=sapphirerapids")) == (
        "this CPU lacks amx_tile, amx_int8, and qemu-user has no 512-bit vectors"
    )


def test_files_are_removed(popcount, popcount_code: Code, native, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Emulator(popcount_code, native, popcount.metadata(native)):
        assert os.listdir(tmp_path)
    assert os.listdir(tmp_path) == []

    def fail(*_: object) -> None:
        raise ToolchainError("no")

    monkeypatch.setattr(emulate, "link_program", fail)
    with pytest.raises(ToolchainError):
        Emulator(popcount_code, native, popcount.metadata(native))
    assert os.listdir(tmp_path) == []


def test_a_program_without_end(popcount, popcount_code: Code, native, monkeypatch) -> None:
    with Emulator(popcount_code, native, popcount.metadata(native)) as program:

        def late(*args: object, **options: object) -> None:
            raise subprocess.TimeoutExpired("x", 1)

        monkeypatch.setattr("subprocess.run", late)
        with pytest.raises(VerifyError, match="no end within"):
            program.run(popcount.inputs)
