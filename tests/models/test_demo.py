"""The shipped demo model and its record belong together."""

import hashlib
import subprocess
import sys

import numpy as np
import onnx
import pytest

from gsb_tvm.models import demo

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")


def test_the_module_needs_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, gsb_tvm.models.demo as d; d.model_path(); d.record();"
        "print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_split_is_fixed_and_its_parts_do_not_meet() -> None:
    train, test = demo.train_split(), demo.test_split()
    assert train.images.shape == (1437, 1, 8, 8)
    assert test.images.shape == (360, 1, 8, 8)
    assert test.images.dtype == np.float32
    assert test.labels.dtype == np.int64
    assert (test.images.min(), test.images.max()) == (-1.0, 1.0)
    assert test.labels[:8].tolist() == demo.test_split().labels[:8].tolist()
    together = np.concatenate([train.images, test.images]).reshape(1797, -1)
    assert len(np.unique(together, axis=0)) == 1797


def test_the_record_is_of_the_file() -> None:
    record, content = demo.record(), demo.model_path().read_bytes()
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert record["bytes"] == len(content) <= 700_000
    assert record["model"] == demo.model_path().name
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    (image,), (logits,) = model.graph.input, model.graph.output
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [1, 1, 8, 8]
    assert [d.dim_value for d in logits.type.tensor_type.shape.dim] == [1, 10]


def test_the_recorded_accuracy_is_the_file_s() -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        str(demo.model_path()), options, providers=["CPUExecutionProvider"]
    )
    test = demo.test_split()
    logits = [session.run(None, {"image": image[None]})[0] for image in test.images]
    right = (np.concatenate(logits).argmax(1) == test.labels).sum()
    recorded = demo.record()["accuracy"]
    # Between fp32 and the recorded float64 a sum may fall on the other side of a threshold.
    assert abs(right - recorded["student"] * len(test.labels)) <= 2
    assert recorded["student"] >= 0.93
    assert recorded["teacher"] >= recorded["student"] - 0.02
