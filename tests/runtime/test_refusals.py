"""Artefacts that are not loaded, or not run, and what is said of them."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gsb_tvm.dialect.errors import ArtefactError, UsageError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime import session
from gsb_tvm.runtime.build import Artefact
from gsb_tvm.runtime.descriptor import descriptor
from gsb_tvm.runtime.session import load
from gsb_tvm.targets.host import host, permitted


def test_foreign_code_is_refused(foreign: Path) -> None:
    with pytest.raises(ArtefactError, match="made for aarch64, this machine is x86_64"):
        load(foreign)


def test_cut_files_are_refused(artefact: Artefact, tmp_path: Path) -> None:
    data, path = artefact.path.read_bytes(), tmp_path / "cut.so"
    for size in range(0, len(data), 4096):
        path.write_bytes(data[:size])
        with pytest.raises(ArtefactError, match=r"cut\.so"):
            load(path)


def rewritten(artefact: Artefact, path: Path, **changes: object) -> Path:
    """A copy of the artefact whose metadata claims something else."""
    written = meta.read(artefact.path)
    own = {name: changes.pop(name) for name in ("target",) if name in changes}
    program = msgspec.structs.replace(written.program, **changes)
    metadata = msgspec.structs.replace(written.only(program), **own)
    data = artefact.path.read_bytes()
    start = data.index(b"gsb-tvm\0")
    old = meta.section(written, descriptor(written))
    new = meta.section(metadata, b"").ljust(len(old))
    assert len(new) == len(old)
    path.write_bytes(meta.seal(data[:start] + new + data[start + len(old) :]))
    return path


@pytest.mark.parametrize(
    ("fixed", "part", "found"),
    [
        (10**18, 0, "Expected `int` <= 140737488355328 - at `$.programs[0].memory.fixed_bytes`"),
        (-1, 0, "Expected `int` >= 0 - at `$.programs[0].memory.fixed_bytes`"),
        (64, -64, "Expected `int` >= 0 - at `$.programs[0].memory.part_bytes`"),
    ],
)
def test_memory_that_cannot_be(
    artefact: Artefact, tmp_path: Path, fixed: int, part: int, found: str
) -> None:
    path = rewritten(artefact, tmp_path / "m.so", layers=(), memory=meta.Memory(fixed, part))
    with pytest.raises(ArtefactError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: the metadata is damaged ({found})."


def test_memory_that_the_system_does_not_give(artefact: Artefact, popcount, tmp_path: Path) -> None:
    memory = meta.Memory(2**47, 0)  # half of the addresses are the kernel's
    module = load(rewritten(artefact, tmp_path / "m.so", layers=(), memory=memory))
    with pytest.raises(UsageError) as caught:
        module(*popcount.inputs)
    assert str(caught.value) == (
        "model.onnx: a call on 1 threads needs 140737488355328 bytes of memory, "
        "which the system does not give."
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        ((-1, 10), "float32", "Expected `int` >= 0 - at `$.programs[0].outputs[0].shape[0]`"),
        ((16, 10), "object", "Expected `str` matching regex "),
    ],
)
def test_outputs_that_cannot_be(
    artefact: Artefact, tmp_path: Path, shape: tuple[int, ...], dtype: str, found: str
) -> None:
    tensor = meta.Tensor("y", shape, dtype)
    path = rewritten(artefact, tmp_path / "m.so", layers=(), outputs=(tensor,))
    with pytest.raises(ArtefactError, match=re.escape(f"the metadata is damaged ({found}")):
        load(path)


def test_programs_that_do_not_fit_together(artefact: Artefact, tmp_path: Path) -> None:
    path = rewritten(artefact, tmp_path / "m.so", layers=(), batch=7)
    with pytest.raises(ArtefactError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: the metadata is damaged (its programs do not fit together). "
        "Compile the model again."
    )


def test_steps_without_names_are_not_timed(artefact: Artefact, popcount, tmp_path: Path) -> None:
    module = load(rewritten(artefact, tmp_path / "m.so", steps=()))
    with pytest.raises(ArtefactError) as caught:
        module.step_ticks(popcount.inputs)
    assert str(caught.value) == (
        "model.onnx: the artefact does not name its steps. Compile the model again."
    )


def test_a_cpu_without_a_feature_is_refused(artefact: Artefact, tmp_path: Path) -> None:
    target = msgspec.structs.replace(
        meta.read(artefact.path).target, text="", required_features=("amx_fp1024", "sse2")
    )
    path = rewritten(artefact, tmp_path / "m.so", target=target)
    with pytest.raises(ArtefactError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: made for {target.cpu}, and this CPU lacks amx_fp1024. "
        "Compile the model with --target native, or for an older CPU."
    )


def test_amx_that_linux_refuses_is_said(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = msgspec.structs.replace(
        meta.read(artefact.path).target, text="", required_features=("amx_tile", "sse2")
    )
    path = rewritten(artefact, tmp_path / "m.so", target=target)
    machine = replace(host(), features=host().features | {"amx_tile"})
    monkeypatch.setattr(session, "host", lambda: permitted(machine, "Operation not permitted"))
    with pytest.raises(ArtefactError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: made for {target.cpu} with AMX, which Linux refuses this process (Operation not "
        "permitted). Allow it arch_prctl(ARCH_REQ_XCOMP_PERM), or compile the model with "
        "-mattr=-amx-int8,-amx-tile."
    )


def test_a_library_the_loader_refuses(artefact: Artefact, tmp_path: Path) -> None:
    data = artefact.path.read_bytes()
    path = tmp_path / "m.so"
    path.write_bytes(meta.seal(data.replace(b"libm.so.6\0", b"libm.so.0\0")))
    with pytest.raises(ArtefactError, match=r"m\.so: cannot be loaded \("):
        load(path)


def test_a_file_that_is_replaced_between_check_and_load(
    artefact: Artefact, tmp_path: Path, monkeypatch
) -> None:
    data, path = artefact.path.read_bytes(), tmp_path / "m.so"
    path.write_bytes(data)
    other = meta.seal(data.replace(b"libm.so.6\0", b"libc.so.6\0"))
    real = session.check_loadable

    def check(metadata: meta.Metadata, name: str) -> None:
        real(metadata, name)
        (tmp_path / "other.so").write_bytes(other)
        (tmp_path / "other.so").replace(path)

    monkeypatch.setattr(session, "check_loadable", check)
    with pytest.raises(ArtefactError, match=r"m\.so: was replaced while it was loaded\."):
        load(path)
