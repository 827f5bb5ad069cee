"""The driver: phases, outputs whole or not at all, strictness, verification."""

import errno
import json
import os

import onnx
import pytest

from gsb_tvm import one_program, verification
from gsb_tvm.dialect.errors import OutputError, StrictError, UsageError, VerifyError
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.runtime.metadata import read
from gsb_tvm.runtime.verify import Verification
from gsb_tvm.schedules.dense.tiles import tiles
from gsb_tvm.targets import resolve
from tests import tiny_models as tiny

HOST = resolve("native")


class Recorder:
    """Keeps what it is told."""

    def __init__(self):
        self.phases = []
        self.steps = []

    def phase(self, name, steps):
        self.phases.append(name)

    def step(self, name):
        self.steps.append(name)


def test_phases_come_in_order_and_are_timed(tmp_path):
    recorder = Recorder()
    out = tmp_path / "m.so"
    result = compile_model(tiny.binary_linear(), HOST, Options(out), recorder)
    wanted = ["import", "recognise", "pack", "lower", "generate", "link", "verify"]
    assert recorder.phases == wanted
    assert list(result.seconds) == wanted
    assert recorder.steps.index("RecognizePlanes") < recorder.steps.index("LowerPacked")
    assert result.size_bytes == out.stat().st_size
    metadata = read(out)
    assert metadata.program.layers == result.layers
    # How bits are counted: by what this machine has.
    (layer,) = result.layers
    assert layer.kernel == f"dense_{tiles(HOST).method.name.lower()}"
    assert metadata.model.name == "tiny"
    assert metadata.json() == out.with_suffix(".json").read_bytes()


def test_a_model_in_a_file_whose_name_is_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"m\xff.onnx")
    onnx.save(tiny.binary_linear(), path)
    options = Options(tmp_path / "m.so", verify=False)
    compile_model(path, HOST, options)
    assert read(options.out).model.name == "m\N{REPLACEMENT CHARACTER}.onnx"


def test_stops_after_a_pass_without_output(tmp_path):
    options = Options(tmp_path / "m.so", stop_after="RecognizePlanes")
    result = compile_model(tiny.binary_linear(), HOST, options)
    assert result.artefact is None
    assert "gsb.matmul" in result.module.script()
    assert list(tmp_path.iterdir()) == []


def test_stop_after_names_the_nearest_passes(tmp_path):
    options = Options(tmp_path / "m.so", stop_after="RecogniseplanesS")
    with pytest.raises(UsageError, match='Nearest names: "RecognizePlanes"'):
        compile_model(tiny.binary_linear(), HOST, options)


@pytest.mark.parametrize("text", ["", "{}", '{"name": "mine"}', "not JSON"])
def test_a_file_of_the_users_beside_it_stays(tmp_path, monkeypatch, text):
    monkeypatch.setattr(one_program, "generate", lambda *_: pytest.fail("generated"))
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(OutputError, match=r"m\.json: the metadata would go here, but another file"):
        compile_model(tiny.binary_linear(), HOST, Options(tmp_path / "m.so"))
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]
    assert (tmp_path / "m.json").read_text() == text


def test_metadata_of_any_version_gives_way(tmp_path):
    versions = {"gsb_tvm": "9.9", "tvm": "1", "tvm_ffi": "1"}
    (tmp_path / "m.json").write_text(json.dumps({"format": 99, "versions": versions}))
    compile_model(tiny.binary_linear(), HOST, Options(tmp_path / "m.so", verify=False))
    assert read(tmp_path / "m.so").json() == (tmp_path / "m.json").read_bytes()


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("old", [False, True])
def test_a_failing_write_leaves_no_new_file(tmp_path, monkeypatch, failing, old):
    out = tmp_path / "m.so"
    if old:
        out.write_bytes(b"old")
    calls = []
    flush = os.fsync

    def fail(handle):
        calls.append(handle)
        if len(calls) > failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="no space"):
        compile_model(tiny.binary_linear(), HOST, Options(out, verify=False))
    assert [path.name for path in tmp_path.iterdir()] == (["m.so"] if old else [])
    assert not old or out.read_bytes() == b"old"


def test_a_failed_verification_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        verification, "verify", lambda *_, **__: Verification("failed", "all differ.")
    )
    with pytest.raises(VerifyError, match=r"\(here\): all differ"):
        compile_model(tiny.binary_linear(), HOST, Options(tmp_path / "m.so"))
    assert list(tmp_path.iterdir()) == []


def test_strict_fails_before_code_is_generated(tmp_path, monkeypatch):
    monkeypatch.setattr(one_program, "generate", lambda *_: pytest.fail("generated"))
    model = tiny.float_linear(tiny.binary_weight())
    with pytest.raises(StrictError, match="layer_MatMul"):
        compile_model(model, HOST, Options(tmp_path / "m.so", strict=True))


def test_dump_holds_a_file_for_each_pass(tmp_path):
    recorder = Recorder()
    options = Options(tmp_path / "m.so", verify=False, dump_ir=tmp_path / "deep" / "ir")
    compile_model(tiny.binary_linear(), HOST, options, recorder)
    passes = [step for step in recorder.steps if step[0].isupper()]
    found = sorted(path.name for path in (tmp_path / "deep" / "ir").iterdir())
    names = ["Import", *passes]
    assert found == [*(f"{i:02d}_{name}.py" for i, name in enumerate(names)), "model.ll", "model.s"]
