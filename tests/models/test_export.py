"""Every export form: valid, of the known node sequences, and with PyTorch's numbers."""

import collections
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.models.bake import bake_weights, reference_logits
from gsb_tvm.models.export import FORMS, export, main
from gsb_tvm.models.fill import realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb, float_vit

ort = pytest.importorskip("onnxruntime")
# One block: exporters trace every block anew, and test_contract.py compiles networks of two.
MINI = replace(PRESETS["mini"], depth=1)


@pytest.fixture(scope="module")
def mini() -> Gsb:
    return realistic_(Gsb(MINI), 0)


@pytest.fixture(scope="module")
def exported(mini: Gsb, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the file of a form at batch 2; each is written once."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def write(form: str, dynamic: bool) -> Path:
        path = folder / f"{form}-{dynamic}.onnx"
        return export(mini, path, form, batch=2, dynamic_batch=dynamic)

    return lambda form, dynamic=False: write(form, dynamic)


def run(path: Path, images: np.ndarray, batch: int) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    parts = np.split(images, len(images) // batch)
    return np.concatenate([session.run(["logits"], {"image": part})[0] for part in parts])


def exact_images(found: np.ndarray, expected: np.ndarray) -> int:
    """Count images without a flipped value: a flip moves logits by 0.1, rounding by 1e-6."""
    return int((np.abs(found - expected).max(1) < 1e-5).sum())


def pictures(count: int) -> np.ndarray:
    shape = (count, MINI.channels, MINI.image_size, MINI.image_size)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def operators(path: Path) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_form_computes_what_torch_computes(
    form: str, dynamic: bool, mini: Gsb, exported: Callable[..., Path]
) -> None:
    path = exported(form, dynamic)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert bool(shape[0].dim_param) == dynamic
    assert [d.dim_value for d in shape][1:] == [3, 32, 32]
    images = pictures(12)
    for batch in (1, 2, 3) if dynamic else (2,):
        expected = reference_logits(mini, images, batch=batch)
        # A sum near a threshold may fall on its other side in fp32; such images are few here.
        assert exact_images(run(path, images, batch), expected) >= 10


def test_legacy_keeps_the_sequences_of_the_official_export(exported: Callable[..., Path]) -> None:
    found = operators(exported("legacy"))
    linears, blocks = 4 * MINI.depth, MINI.depth
    assert found["ReduceL1"] == linears  # weights are subgraphs on initialisers
    assert found["Sign"] == 2 * linears - blocks + 5 * blocks  # fc2's input has none; Q, K, 3 of V
    assert found["Erf"] == found["Softmax"] == blocks
    assert found["Split"] == blocks
    assert found["Greater"] == 4 * blocks
    assert found["ReduceMax"] == found["Less"] == 2 * blocks
    assert found["ReduceMin"] == blocks
    assert found["LayerNormalization"] == 0


def test_the_patch_embedding_keeps_its_residue(exported: Callable[..., Path]) -> None:
    graph = onnx.load(exported("legacy")).graph
    made_by = {name: node for node in graph.node for name in node.output}
    conv = next(node for node in graph.node if node.op_type == "Conv")
    sequence, node = [], made_by[conv.input[1]]
    while True:
        sequence.append(node.op_type)
        before = [made_by[name] for name in node.input if name in made_by]
        before = [n for n in before if n.op_type not in ("Constant", "Identity")]
        if not before:
            break
        node = before[0]
    assert sequence[:5] == ["Mul", "Add", "Sub", "Round", "Clip"]


def test_simplified_forms_hold_two_level_weights(exported: Callable[..., Path]) -> None:
    path = exported("legacy-sim")
    assert operators(path)["ReduceL1"] == 0
    assert operators(path)["LayerNormalization"] == 2 * MINI.depth + 1
    values = [
        onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in onnx.load(path).graph.node
        if node.op_type == "Constant"
    ]
    hidden = [v for v in values if v.shape == (MINI.width, MINI.hidden)]
    assert len(hidden) == MINI.depth
    assert all(len(np.unique(np.abs(v))) == 1 for v in hidden)


def test_dynamo_splits_by_slices_and_keeps_its_thresholds_as_initialisers(
    exported: Callable[..., Path],
) -> None:
    path = exported("dynamo")
    # The new exporter writes no opset below 18, the default is 17.
    assert [o.version for o in onnx.load(path).opset_import if not o.domain] == [18]
    found = operators(path)
    assert found["Split"] == 0
    assert found["Slice"] == 3 * MINI.depth
    assert found["Squeeze"] == 3 * MINI.depth + found["ReduceL1"]
    scalars = {
        float(onnx.numpy_helper.to_array(t))
        for t in onnx.load(path).graph.initializer
        if not t.dims
    }
    assert {float(np.float32(0.7)), float(np.float32(0.9))} <= scalars


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_the_legacy_exporter_writes_the_opset_asked_for(
    opset: int, mini: Gsb, tmp_path: Path
) -> None:
    proto = onnx.load(export(mini, tmp_path / "m.onnx", opset=opset))
    assert [o.version for o in proto.opset_import if not o.domain] == [opset]


def test_the_new_exporter_writes_later_opsets(mini: Gsb, tmp_path: Path) -> None:
    proto = onnx.load(export(mini, tmp_path / "m.onnx", "dynamo", opset=22))
    assert [o.version for o in proto.opset_import if not o.domain] == [22]


def test_external_data_lies_beside_the_file_and_is_replaced(mini: Gsb, tmp_path: Path) -> None:
    for _ in range(2):
        export(mini, tmp_path / "m.onnx", external_data=True)
    data = tmp_path / "m.onnx.data"
    inline = export(mini, tmp_path / "inline.onnx")
    assert data.stat().st_size < inline.stat().st_size
    images = pictures(2)
    np.testing.assert_array_equal(run(tmp_path / "m.onnx", images, 1), run(inline, images, 1))


def test_a_baked_network_exports_constants(mini: Gsb, tmp_path: Path) -> None:
    path = export(bake_weights(mini), tmp_path / "m.onnx")
    assert operators(path)["ReduceL1"] == 0
    images = pictures(12)
    assert exact_images(run(path, images, 1), reference_logits(mini, images)) >= 11


def test_the_float_network_exports(tmp_path: Path) -> None:
    model = realistic_(float_vit(MINI), 0).eval()
    path = export(model, tmp_path / "m.onnx")
    assert operators(path)["Sign"] == 0
    images = pictures(4)
    # 2 blocks of sums of 96 to 192 products with relative error 2^-24 each.
    np.testing.assert_allclose(run(path, images, 1), reference_logits(model, images), atol=2e-5)


def test_export_leaves_the_network_as_it_was(mini: Gsb, tmp_path: Path) -> None:
    mini.train()
    export(mini, tmp_path / "m.onnx")
    assert mini.training


def test_an_unknown_form_is_refused(mini: Gsb, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^form is 'onnx', expected one of legacy, "):
        export(mini, tmp_path / "m.onnx", "onnx")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"opset": 21}, "opset is 21, but the exporter of form legacy writes 17 to 20. "
         "Change --opset or --form."),
        ({"form": "dynamo-sim", "opset": 16}, "opset is 16, but the exporter of form dynamo-sim "
         "writes 17 to 22. Change --opset or --form."),
        ({"batch": 0}, "batch is 0, expected 1 or more. Change --batch."),
    ],
)  # fmt: skip
def test_what_an_exporter_does_not_write_is_refused(
    options: dict[str, object], text: str, mini: Gsb, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        export(mini, tmp_path / "m.onnx", **options)
    assert str(caught.value) == text
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.onnx"
    assert main(["--preset", "mini", "--fresh", "1", "--batch", "2", str(out)]) == 0
    assert onnx.load(out).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    assert capsys.readouterr().out == f"{out}: {out.stat().st_size / 1e6:.1f} MB\n"


def test_the_command_names_a_folder_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "no" / "m.onnx"
    assert main(["--preset", "mini", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"error: {out}: cannot write the ONNX file (No such file or directory). "
        "Choose another path.\n"
    )
