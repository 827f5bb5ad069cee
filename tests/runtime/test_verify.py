import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.runtime import verify as verifying
from gsb_tvm.runtime.metadata import Tensor
from gsb_tvm.runtime.reference import SCALING, _scaled, onnxruntime_run
from gsb_tvm.runtime.verify import compare, draw, judge, row_errors, verify

SPECS = [Tensor("x", (1, 64), "float32")]
WEIGHTS = np.random.default_rng(3).standard_normal((64, 10)).astype(np.float32)


def binary_model(path: Path, scale: float = 0.25) -> Path:
    """sign(x) @ sign(w) * scale, as ONNX."""
    nodes = [
        helper.make_node("Sign", ["x"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["m"]),
        helper.make_node("Mul", ["m", "scale"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.sign(WEIGHTS), "w"),
        numpy_helper.from_array(np.array(scale, np.float32), "scale"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def packed(inputs):
    return [(np.sign(inputs[0]) @ np.sign(WEIGHTS)).astype(np.float32) * np.float32(0.25)]


def test_a_right_module_is_ok(tmp_path: Path) -> None:
    result = verify(packed, binary_model(tmp_path / "m.onnx"), SPECS)
    assert (result.verdict, result.exact) == ("ok", 8)
    assert all(sample.same_top1 for sample in result.samples)
    assert result.reference == "original"
    assert result.reason == (
        "8 of 8 samples equal ONNX Runtime on the original model, 0 lie on a rounding edge, "
        "0 differ (at most 1 may, and one must be equal)."
    )


def test_a_wrong_module_fails(tmp_path: Path) -> None:
    def wrong(inputs):
        (y,) = packed(inputs)
        y[0, 3] += 0.5
        return [y]

    result = verify(wrong, (binary_model(tmp_path / "m.onnx")).read_bytes(), SPECS)
    assert (result.verdict, result.exact) == ("failed", 0)
    assert result.count("wrong") == len(result.samples)


def test_the_folded_model_is_the_reference(tmp_path: Path) -> None:
    original = binary_model(tmp_path / "m.onnx", scale=0.3)
    assert verify(packed, original, SPECS, samples=2).verdict == "failed"
    folded = onnx.load(binary_model(tmp_path / "f.onnx"))
    result = verify(packed, original, SPECS, folded=folded, samples=2)
    assert (result.verdict, result.reference) == ("ok", "folded")


def test_without_onnxruntime_it_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = verify(packed, tmp_path / "none.onnx", SPECS)
    assert (result.verdict, result.samples) == ("skipped", ())
    assert "onnxruntime is not installed" in result.reason


def test_a_model_onnxruntime_refuses(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x07nonsense")
    with pytest.raises(ToolchainError, match="ONNX Runtime refuses the model"):
        verify(packed, path, SPECS)
    run = onnxruntime_run(binary_model(path), SPECS)
    with pytest.raises(ToolchainError, match="ONNX Runtime fails on the model"):
        run([np.zeros((2, 2), np.float32)])


# References for the rule: two runs that agree but where `edges` says.
def references(edges: float):
    def main(inputs):
        return [inputs[0][:, :4] * 2]

    def other(inputs):
        on_edge = abs(inputs[0][0, 0]) < edges
        return [inputs[0][:, :4] * 2 + on_edge]

    return [lambda: main, lambda: other]


def test_samples_on_an_edge_are_not_held_against_the_module() -> None:
    def run(inputs):  # flips another value on edges than the references do
        flip = np.zeros((1, 4), np.float32)
        flip[0, 1] = abs(inputs[0][0, 0]) < 0.5
        return [inputs[0][:, :4] * 2 + flip]

    samples = compare(run, references(0.5), SPECS, samples=32)
    result = judge(samples, "folded")
    assert result.verdict == "ok"
    assert result.count("tie") > 4
    assert result.exact + result.count("tie") == 32
    assert judge(compare(run, references(0.0), SPECS, samples=32), "folded").verdict == "failed"


def test_agreeing_with_any_run_is_exact() -> None:
    samples = compare(references(0.5)[1](), references(0.5), SPECS, samples=16)
    assert {sample.kind for sample in samples} == {"exact"}


def test_one_wrong_sample_is_allowed_and_two_are_not() -> None:
    for allowed, total in ((1, 4), (1, 8), (2, 16)):
        exact = verifying.Sample("exact", 0.0, True)
        wrong = verifying.Sample("wrong", 0.5, False)
        at_limit = [wrong] * allowed + [exact] * (total - allowed)
        assert judge(at_limit, "folded").verdict == "ok"
        assert judge([wrong, *at_limit[:-1]], "folded").verdict == "failed"


def test_more_samples_are_drawn_while_none_is_exact() -> None:
    tie = compare(lambda x: [x[0][:, :4] * 2 + 0.25], references(np.inf), SPECS, samples=4)
    assert len(tie) == 16
    assert judge(tie, "folded").verdict == "failed"


def test_runs_are_made_only_while_a_sample_is_unexplained() -> None:
    made: list[int] = []

    def maker(number: int):
        def make():
            made.append(number)
            return lambda x: [x[0] * (2 + (number == 2))]

        return make

    makers = [maker(number) for number in range(5)]
    compare(lambda x: [x[0] * 2], makers, SPECS, samples=4)
    assert made == [0]
    made.clear()
    calls = iter([0, 1, 0, 0])
    kinds = compare(lambda x: [x[0] * 2 + next(calls)], makers, SPECS, samples=4)
    assert [sample.kind for sample in kinds] == ["exact", "tie", "exact", "exact"]
    assert made == [0, 1, 2]


def test_a_batch_counts_row_by_row() -> None:
    specs = [Tensor("x", (4, 8), "float32")]

    def run(inputs):
        y = inputs[0] * 2
        y[1] += 1
        return [y]

    samples = compare(run, [lambda: lambda x: [x[0] * 2]], specs, samples=8)
    assert [sample.kind for sample in samples] == ["exact", "wrong", "exact", "exact"] * 2


def test_equal_largest_classes_count_as_the_same() -> None:
    def run(inputs):
        return [np.array([[1.0, 1.0 + 1e-7, 0.0]], np.float32)]

    reference = [lambda: lambda x: [np.array([[1.0, 1.0, 0.0]], np.float32)]]
    assert compare(run, reference, SPECS, samples=1)[0].same_top1


@pytest.mark.parametrize(
    ("actual", "error"),
    [
        ([1.0, 2.0, 4.0], 0.0),
        ([1.0, 2.0, 3.0], 0.25),
        ([1.0, np.nan, 4.0], np.inf),
        ([1.0, np.inf, 4.0], np.inf),
    ],
)
def test_row_errors(actual: list[float], error: float) -> None:
    expected = np.array([[1.0, 2.0, 4.0]])
    assert row_errors([np.array([actual])], [expected], 1).tolist() == [error]


def test_row_errors_at_the_same_nan_and_infinity() -> None:
    odd = np.array([[np.nan, np.inf, -np.inf, 1.0]])
    assert row_errors([odd], [odd.copy()], 1).tolist() == [0.0]


def test_another_shape_or_number_of_outputs_is_an_infinite_error() -> None:
    assert row_errors([np.zeros((2, 3))], [np.zeros((2, 4))], 2).tolist() == [np.inf] * 2
    assert row_errors([], [np.zeros(3)], 1).tolist() == [np.inf]


@given(seed=st.integers(0, 2**32 - 1))
def test_scaling_moves_no_more_than_rounding_does(seed: int) -> None:
    values = np.array([0.0, -0.25, 0.25, 1.5, -3.0], np.float32)
    tensors = [
        numpy_helper.from_array(values, "float"),
        numpy_helper.from_array(np.arange(3), "shape"),
    ]
    model = helper.make_model(helper.make_graph([], "g", [], [], tensors))
    scaled = onnx.load_from_string(_scaled(model, seed))
    moved, shape = (numpy_helper.to_array(t) for t in scaled.graph.initializer)
    assert moved[0] == 0
    assert moved[1] == -moved[2]
    np.testing.assert_allclose(moved, values, rtol=SCALING + 2.0**-24)
    assert shape.tolist() == [0, 1, 2]
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == values.tolist()


def test_draws_fit_the_dtype() -> None:
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64", "int64", "uint8", "bool"):
        array = draw(Tensor("x", (3, 5), dtype), rng)
        assert (array.shape, array.dtype) == ((3, 5), np.dtype(dtype))


def test_equal_seeds_draw_equal_samples(tmp_path: Path) -> None:
    model = binary_model(tmp_path / "m.onnx")
    seen = []
    for seed in (1, 1, 2):
        kept: list[bytes] = []
        verify(lambda x, k=kept: k.append(x[0].tobytes()) or packed(x), model, SPECS, seed=seed)
        seen.append(kept)
    assert seen[0] == seen[1] != seen[2]
    assert "onnxruntime" in sys.modules
