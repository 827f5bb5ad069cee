"""What the face makes of a comparison: failed, or nothing to compare with."""

import pytest

from gsb_tvm import verification
from gsb_tvm.dialect.errors import ToolchainError, UsageError
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.runtime.metadata import read
from gsb_tvm.runtime.session import load
from gsb_tvm.runtime.verify import Sample, judge
from gsb_tvm.targets import resolve
from tests import tiny_models as tiny

EXACT, TIE, WRONG = (Sample(kind, 1.0, True) for kind in ("exact", "tie", "wrong"))


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    out = tmp_path_factory.mktemp("artefact") / "m.so"
    compile_model(tiny.binary_linear(), resolve("native"), Options(out, verify=False))
    return out


def compare(artefact, monkeypatch, samples):
    monkeypatch.setattr(verification, "verify", lambda *_, **__: judge(samples, "folded"))
    reference = verification.reference_of(tiny.binary_linear())
    return verification.compare(load(artefact).run, reference, read(artefact).program.inputs)


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        ([EXACT] * 8, "ok"),
        ([EXACT] + [TIE] * 7, "ok"),
        ([TIE] * 32, "skipped"),
        ([TIE] * 31 + [WRONG], "failed"),
        ([WRONG] * 8, "failed"),
    ],
)
def test_only_ties_alone_decide_nothing(artefact, monkeypatch, samples, verdict):
    found = compare(artefact, monkeypatch, samples)
    assert found.verdict == verdict
    assert ("undecided" in found.reason) == (verdict == "skipped")
    assert found.samples == tuple(samples)


def test_a_model_that_onnxruntime_refuses_is_skipped(artefact, monkeypatch):
    def refuse(*_, **__):
        raise ToolchainError("ONNX Runtime refuses the model (no such operator).")

    monkeypatch.setattr(verification, "verify", refuse)
    reference = verification.reference_of(tiny.binary_linear())
    found = verification.compare(load(artefact).run, reference, read(artefact).program.inputs)
    assert (found.verdict, "no such operator" in found.reason) == ("skipped", True)


def test_the_true_model_is_exact_and_another_differs(artefact):
    run, inputs = load(artefact).run, read(artefact).program.inputs
    same = verification.reference_of(tiny.binary_linear())
    assert verification.compare(run, same, inputs).exact == 8
    other = verification.reference_of(tiny.binary_linear(seed=1))
    assert verification.compare(run, other, inputs).verdict == "failed"


def test_a_model_with_other_inputs_is_named(artefact):
    run, inputs = load(artefact).run, read(artefact).program.inputs
    tokens = {"shape": (1, 7, tiny.FEATURES), "out_shape": (1, 7, tiny.COLUMNS)}
    other = verification.reference_of(tiny.binary_linear(**tokens))
    expected = r"takes x 1 x 7 x 40, the artefact x 1 x 5 x 40\. Give the ONNX file"
    with pytest.raises(UsageError, match=expected):
        verification.compare(run, other, inputs)
