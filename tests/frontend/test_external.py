"""External data: read right where they are the model's own, refused where they might not be."""

import os
import sys

import numpy as np
import onnx
import pytest
import tvm_ffi

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend import load
from tests.frontend.sketch import Sketch, tiny_gsb

VALUES = np.arange(64, dtype=np.float32)
SECRET = b"S" * 256


def model_with(location, **entries):
    """x + w, whose w of 64 floats is in an external file."""
    g = Sketch()
    g.output(g("Add", g.input("x", [64]), g.constant(VALUES, "w")))
    model = g.model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model


@pytest.fixture
def folder(tmp_path):
    """A model's folder, beside a file that no model may read."""
    (tmp_path / "secret.bin").write_bytes(SECRET)
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "w.bin").write_bytes(VALUES.tobytes())
    return inside


def refusal(folder, model):
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        load(path)
    prefix = f'{path}, tensor "w": '
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "sub/../../secret.bin",
        "./../secret.bin",
        "/etc/passwd",
        "//etc/passwd",
        "..",
        ".",
        "",
        "..\\secret.bin",
        "C:\\secret.bin",
        "C:secret.bin",
        "file:///etc/passwd",
        "w.bin\0.txt",
    ],
)
def test_paths_out_of_the_folder_are_refused(folder, location):
    assert refusal(folder, model_with(location)) == (
        f"its data are in {location!r}, and only files inside the model's folder are read. Move "
        "the file there and export the model again."
    )


@pytest.mark.parametrize("size", [256, 255])
def test_length_and_file_must_fit_the_shape(folder, size):
    (folder / "w.bin").write_bytes(VALUES.tobytes()[:size])
    path = folder / "m.onnx"
    path.write_bytes(model_with("w.bin").SerializeToString())
    if size == 256:
        assert load(path).inputs
        return
    assert refusal(folder, model_with("w.bin")) == (
        "its data reach from byte 0 to 256 of 'w.bin', which has 255. The file is cut or of "
        "another model."
    )


@pytest.mark.parametrize("key", ["offset", "length"])
@pytest.mark.parametrize("value", ["-1", "1e3", "0x10", " 1", "1_0", "٣", "", str(10**18), "nan"])
def test_offsets_and_lengths_are_plain_numbers(folder, key, value):
    text = refusal(folder, model_with("w.bin", **{key: value}))
    assert text == (
        f"the {key} of its external data is {value!r}, not a number of bytes. Export the model "
        "again."
    )


def test_offset_beyond_the_file(folder):
    assert refusal(folder, model_with("w.bin", offset=10**17)) == (
        "its data reach from byte 100000000000000000 to 100000000000000256 of 'w.bin', which has "
        "256. The file is cut or of another model."
    )


def test_length_must_be_that_of_the_shape(folder):
    assert refusal(folder, model_with("w.bin", length=128)) == (
        "its external data have length 128, and its shape [64] needs 256 bytes. Export the model "
        "again."
    )


def test_huge_and_negative_dimensions(folder):
    model = model_with("w.bin")
    model.graph.initializer[0].dims[0] = 2**40
    assert refusal(folder, model).startswith("the model's external data go beyond the limit of ")
    model.graph.initializer[0].dims[0] = -1
    assert refusal(folder, model) == "its shape [-1] has a negative size."
    model = model_with("w.bin")
    model.graph.initializer[0].dims[:] = [2**62, 2**62, 4]
    assert "go beyond the limit" in refusal(folder, model)


def test_strings_are_not_external(folder):
    model = model_with("w.bin")
    model.graph.initializer[0].data_type = onnx.TensorProto.STRING
    assert refusal(folder, model) == (
        "external data of element type 8 are not handled. Export the model in float32."
    )


def linked(folder, name, kind):
    target = folder.parent / "secret.bin"
    path = folder / name
    if kind == "symlink":
        path.symlink_to(target)
    elif kind == "symlink inside":
        path.symlink_to("w.bin")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize("kind", ["symlink", "symlink inside", "dangling", "fifo", "folder"])
def test_links_and_special_files_are_refused(folder, kind):
    linked(folder, "d.bin", kind)
    what = "not a regular file" if kind in ("fifo", "folder") else "a symbolic link"
    assert refusal(folder, model_with("d.bin")) == (
        f"'d.bin' of its data file 'd.bin' is {what}, and links and special files are not "
        "followed. Replace it by a copy of the data."
    )


def test_a_device_is_refused_without_being_opened(folder):
    # A device node needs root; /dev/zero by link is refused as a link, by path as absolute.
    (folder / "dev").symlink_to("/dev")
    assert refusal(folder, model_with("dev/zero")) == (
        "'dev' of its data file 'dev/zero' is a symbolic link, and links and special files are "
        "not followed. Replace it by a copy of the data."
    )


def test_hard_links_are_refused(folder):
    os.link(folder.parent / "secret.bin", folder / "d.bin")
    assert refusal(folder, model_with("d.bin")) == (
        "its data file 'd.bin' has 2 hard links, so it may be a file outside the model's folder. "
        "Replace it by a copy."
    )


def test_missing_file(folder):
    assert refusal(folder, model_with("gone.bin")) == (
        "its data file 'gone.bin' is missing beside the model. Copy it there."
    )


def test_a_file_as_a_folder(folder):
    assert refusal(folder, model_with("w.bin/w.bin")) == (
        "'w.bin' of its data file 'w.bin/w.bin' is not a folder, and links and special files are "
        "not followed. Replace it by a copy of the data."
    )


def test_attributes_may_not_point_outside_either(folder):
    g = Sketch()
    tensor = model_with("../secret.bin").graph.initializer[0]
    g.output(g("Add", g.input("x", [64]), g("Constant", value=tensor)))
    assert "only files inside the model's folder" in refusal(folder, g.model())


def test_nested_folders_and_offsets_are_read(folder):
    nested = folder / "a" / "b"
    nested.mkdir(parents=True)
    (nested / "w.bin").write_bytes(b"\1" * 12 + VALUES.tobytes() + b"\2" * 4)
    path = folder / "m.onnx"
    path.write_bytes(model_with("a/b/w.bin", offset=12, length=256).SerializeToString())
    (block,) = load(path).module["main"].body.blocks
    np.testing.assert_array_equal(block.bindings[0].value.args[1].value.numpy(), VALUES)


def test_a_model_saved_with_external_data_is_the_same_model(tmp_path):
    whole, parts = tmp_path / "whole.onnx", tmp_path / "parts.onnx"
    onnx.save(tiny_gsb(), whole)
    onnx.save(tiny_gsb(), parts, save_as_external_data=True, location="d.data", size_threshold=0)
    first, second = load(whole), load(parts)
    assert tvm_ffi.structural_equal(first.module, second.module)
    data = (tmp_path / "d.data").read_bytes()
    (tmp_path / "d.data").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert load(parts).sha256 != second.sha256


def test_the_limit_counts_external_data(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(tiny_gsb(), path, save_as_external_data=True, location="d.data", size_threshold=0)
    with pytest.raises(ModelError, match=r"beyond the limit of \d+ bytes\. Larger .* handled\.$"):
        load(path, max_bytes=path.stat().st_size + 100)


opened: list[str] | None = None


def _record(event, args):
    if opened is not None and event == "open" and isinstance(args[0], str | bytes):
        opened.append(os.fsdecode(args[0]))


@pytest.fixture
def opens():
    """Every path that Python opens during the test. An audit hook cannot be removed: it idles."""
    global opened
    if not getattr(_record, "installed", False):
        sys.addaudithook(_record)
        _record.installed = True
    opened = []
    yield opened
    opened = None


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "d.bin", "dev/zero"])
def test_no_file_outside_is_opened(folder, location, opens):
    os.symlink("../secret.bin", folder / "d.bin")
    os.symlink("/dev", folder / "dev")
    refusal(folder, model_with(location))
    touched = {os.path.basename(path) for path in opens}
    assert "m.onnx" in touched
    assert not touched & {"secret.bin", "passwd", "d.bin", "zero", "dev"}


def test_the_recorder_sees_what_is_read(folder, opens):
    path = folder / "m.onnx"
    path.write_bytes(model_with("w.bin").SerializeToString())
    load(path)
    assert "w.bin" in opens
