import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.errors import ArtefactError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import Artefact


def test_reads_back_what_was_written(artefact: Artefact, popcount, native) -> None:
    assert meta.read(artefact.path) == artefact.code.described(popcount.metadata(native))


def test_the_file_beside_holds_the_same(artefact: Artefact) -> None:
    found = meta.read(artefact.path)
    assert artefact.metadata_path.read_bytes() == found.json()
    # Inside the library it stands without the indentation.
    assert msgspec.json.encode(found, order="deterministic") in artefact.path.read_bytes()


def test_foreign_artefacts_can_be_read(foreign: Path) -> None:
    target = meta.read(foreign).target
    assert (target.arch, target.cpu) == ("aarch64", "cortex-a72")
    assert "asimd" in target.required_features


def test_holds_no_path_and_no_time(artefact: Artefact) -> None:
    data = artefact.path.read_bytes()
    assert str(artefact.path.parent).encode() not in data
    assert b"/tmp" not in data


def test_files_cut_anywhere_are_refused(artefact: Artefact) -> None:
    data = artefact.path.read_bytes()
    for size in {*range(0, len(data), 4096), *range(0, 300), len(data) - 1}:
        with pytest.raises(ArtefactError):
            meta.parse(data[:size], "m.so")


def test_the_message_for_a_cut_file(artefact: Artefact) -> None:
    data = artefact.path.read_bytes()
    with pytest.raises(ArtefactError) as caught:
        meta.parse(data[:8192], "m.so")
    assert str(caught.value) == (
        f"m.so: cut off, 8192 bytes are left of at least {len(data)}. "
        "Copy it again or compile the model again."
    )


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_noticed(artefact: Artefact, data: st.DataObject) -> None:
    library = bytearray(artefact.path.read_bytes())
    at = data.draw(st.integers(0, len(library) - 1) | st.integers(0, 1024))
    library[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ArtefactError):
        meta.parse(bytes(library), "m.so")


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, b"\x7fELF" + noise, b"\x7fELF\x02\x01\x01" + noise):
        with pytest.raises(ArtefactError):
            meta.parse(data, "m.so")


def test_another_format_is_refused(artefact: Artefact) -> None:
    with pytest.raises(ArtefactError, match=r"made in artefact format 9, expected 4\."):
        meta.parse(patched(artefact, 8, struct.pack("<I", 9)), "m.so")


def test_lengths_beyond_the_section_are_refused(artefact: Artefact) -> None:
    for at in (16, 24):
        with pytest.raises(ArtefactError, match=r"the section \.gsb_tvm is damaged"):
            meta.parse(patched(artefact, at, struct.pack("<Q", 2**20)), "m.so")


def test_metadata_of_another_shape_is_refused(artefact: Artefact) -> None:
    data = artefact.path.read_bytes().replace(b'"versions"', b'"verzions"')
    with pytest.raises(ArtefactError, match="the metadata is damaged"):
        meta.parse(resealed(data), "m.so")


def test_a_library_of_others_is_refused() -> None:
    library = Path(zlib.__file__ if hasattr(zlib, "__file__") else "/bin/ls")
    with pytest.raises(ArtefactError, match="not made by gsb_tvm"):
        meta.read(library)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"none\.so: cannot be read \(No such file"):
        meta.read(tmp_path / "none.so")


def patched(artefact: Artefact, at: int, data: bytes) -> bytes:
    """The artefact with bytes of the section's header replaced."""
    library = artefact.path.read_bytes()
    start = library.index(b"gsb-tvm\0") + at
    return resealed(library[:start] + data + library[start + len(data) :])


def resealed(library: bytes) -> bytes:
    return meta.seal(library)
