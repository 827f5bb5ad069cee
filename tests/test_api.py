"""``gsb_tvm.build`` and ``gsb_tvm.load`` as a Python user calls them."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.dialect.errors import ArtefactError, GsbError, ModelError, StrictError, UsageError
from tests import tiny_models as tiny

ROOT = Path(__file__).resolve().parent.parent


def expected(x):
    bias = np.linspace(-1, 1, tiny.COLUMNS, dtype=np.float32)
    return np.sign(x) @ tiny.binary_weight() + bias


def images(count=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, tiny.TOKENS, tiny.FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def module():
    return gsb_tvm.build(tiny.binary_linear())


def close(actual, x):
    np.testing.assert_allclose(actual, expected(x), rtol=1e-6, atol=1e-6)


def test_importing_the_package_is_light():
    code = "import gsb_tvm, sys; print(gsb_tvm.__version__, *sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {"tvm", "onnx", "numpy", "torch", "rich"}.isdisjoint(done.stdout.split())
    assert set(gsb_tvm.__all__) <= set(dir(gsb_tvm))


def test_a_mistake_is_an_error_of_the_package(tmp_path):
    with pytest.raises(gsb_tvm.GsbError, match=r"none\.so: cannot be read"):
        gsb_tvm.load(tmp_path / "none.so")


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'buidl'"):
        _ = gsb_tvm.buidl


def test_calls_by_position_name_and_mapping(module):
    x = images()
    for result in (module(x), module(x=x), module({"x": x})):
        assert isinstance(result, np.ndarray)
        close(result, x)


def test_calls_with_torch_give_torch(module):
    torch = pytest.importorskip("torch")
    x = images(seed=1)
    result = module(torch.from_numpy(x))
    assert isinstance(result, torch.Tensor)
    close(result.numpy(), x)


def test_calls_with_dlpack(module):
    class Foreign:
        def __init__(self, array):
            self._array = array

        def __dlpack__(self, **options):
            return self._array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self._array.__dlpack_device__()

    x = images(seed=2)
    close(module(Foreign(x)), x)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (np.zeros((1, tiny.TOKENS, tiny.FEATURES)), "float64"),
        (np.zeros((2, tiny.TOKENS, tiny.FEATURES), np.float32), "shape"),
        (np.zeros((tiny.TOKENS, tiny.FEATURES), np.float32), "dimensions"),
        ("an image", "str"),
    ],
)
def test_an_input_that_does_not_fit_is_a_usage_error(module, value, word):
    with pytest.raises(UsageError, match=word):
        module(value)


def test_report_has_a_row_for_each_operator(module):
    (row,) = module.report
    assert (row.name, row.form) == ("layer_MatMul", "packed")
    assert row.shape == (tiny.TOKENS, tiny.FEATURES, tiny.COLUMNS)
    assert row.macs == tiny.TOKENS * tiny.FEATURES * tiny.COLUMNS
    # Two words for 40 inputs and one float scale, for each column.
    assert row.bytes == tiny.COLUMNS * (2 * 4 + 4)


def test_saves_and_loads(module, tmp_path):
    module.save(tmp_path / "m.so")
    again = gsb_tvm.load(tmp_path / "m.so")
    assert again.metadata == module.metadata
    x = images(seed=3)
    assert np.array_equal(again(x), module(x))


def test_many_threads_share_a_module(module):
    inputs = [images(seed=seed) for seed in range(8)]
    wanted = [module(x) for x in inputs]
    wrong = []

    def work(at):
        for _ in range(50):
            if not np.array_equal(module(inputs[at]), wanted[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_builds_for_a_batch_and_verifies(tmp_path):
    model = tiny.binary_linear(
        shape=("n", tiny.TOKENS, tiny.FEATURES), out_shape=("n", tiny.TOKENS, tiny.COLUMNS)
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    built = gsb_tvm.build(tmp_path / "m.onnx", "llvm", batch=3, verify=True, strict=True)
    x = images(3, seed=4)
    close(built(x), x)


def test_equal_models_give_equal_bytes(module, tmp_path):
    for name, each in (("a.so", module), ("b.so", gsb_tvm.build(tiny.binary_linear()))):
        each.save(tmp_path / name)
    assert (tmp_path / "a.so").read_bytes() == (tmp_path / "b.so").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nothing.onnx",), ModelError),
        ((tiny.binary_linear(), "llvm -mcpu=cortex-a72"), UsageError),
        ((tiny.binary_linear(), "hasvell"), UsageError),
    ],
)
def test_refusals_are_errors_of_the_house(arguments, error):
    with pytest.raises(error) as raised:
        gsb_tvm.build(*arguments)
    assert isinstance(raised.value, GsbError)


def test_strict_raises():
    with pytest.raises(StrictError, match="layer_MatMul"):
        gsb_tvm.build(tiny.float_linear(tiny.binary_weight()), strict=True)


def test_loading_what_is_no_artefact_raises(tmp_path):
    (tmp_path / "m.so").write_bytes(b"\x7fELF")
    with pytest.raises(ArtefactError):
        gsb_tvm.load(tmp_path / "m.so")
