"""Who else is timed, where there is no GPU: they are told as skipped, with the reason."""

import pytest

from tests.gpu import compiled_opponents, timed_models

pytest.importorskip("torch")


def test_engines_that_are_not_there_are_skipped():
    from benchmarks.gpu import onnxruntime_opponents as other

    if not other.missing(other.TENSORRT):
        pytest.skip("TensorRT is here")
    for batch in (1, 64):
        check = compiled_opponents.opened(None, [])
        (row,) = check(f"TensorRT fp16, in ONNX Runtime, {batch}")
        name = f"TensorRT fp16, in ONNX Runtime, batch {batch}"
        assert (row.name, row.verdict) == (name, "skipped")
        assert row.text == other.missing(other.TENSORRT)


def test_whatever_keeps_an_engine_from_running_is_told():
    def fails():
        raise ValueError("no such operator")

    runs = {}
    (row,) = timed_models._added(runs, "an engine", 8, fails)
    assert (row.name, row.verdict) == ("an engine, batch 8", "skipped")
    assert row.text == "ValueError: no such operator"
    assert not runs
    assert not [*timed_models._added(runs, "another", 8, lambda: lambda: None)]
    assert [*runs] == ["another"]
