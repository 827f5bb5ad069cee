"""GSB networks in every export form: one module, and the numbers of the exactness contract."""

import dataclasses

import numpy as np
import onnx
import pytest
import tvm_ffi

from gsb_tvm.frontend import load
from tests.frontend.running import constants, operators, run_onnx, run_relax

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxsim")

from gsb_tvm.models.bake import bake_weights, reference_logits  # noqa: E402
from gsb_tvm.models.export import FORMS, export  # noqa: E402
from gsb_tvm.models.fill import realistic_  # noqa: E402
from gsb_tvm.models.gsb import PRESETS, Gsb  # noqa: E402

BATCH = 2
IMAGES = 6
LAYER_NORM = ["mean", "subtract", "multiply", "mean", "add", "sqrt", "divide", "multiply", "add"]


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    config = dataclasses.replace(PRESETS["mini"], depth=1, width=64, heads=2, classes=5)
    return realistic_(Gsb(config), 3)


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """Path of each form, static and dynamic; exported once."""
    folder = tmp_path_factory.mktemp("forms")
    return {
        (form, dynamic): export(
            network, folder / f"{form}_{dynamic}.onnx", form, batch=BATCH, dynamic_batch=dynamic
        )
        for form in FORMS
        for dynamic in (False, True)
    }


@pytest.fixture(scope="module")
def imported(files):
    return {key: load(path, batch=BATCH) for key, path in files.items()}


def kinds(imported):
    return {key: sorted(operators(model.module)) for key, model in imported.items()}


@pytest.mark.parametrize("form", FORMS)
def test_dynamic_batch_gives_the_static_module(imported, form):
    static, dynamic = imported[form, False], imported[form, True]
    assert tvm_ffi.structural_equal(static.module, dynamic.module)
    assert any("dynamic batch" in note for note in dynamic.notes)


def test_both_exporters_arrive_alike_but_for_the_epsilon(imported):
    found = kinds(imported)
    legacy, dynamo = found["legacy", False], found["dynamo", False]
    assert dynamo == found["dynamo-sim", False]
    # torch.export drops the 1e-12 under the root, which vanishes in float32.
    for _ in range(legacy.count("sqrt")):
        dynamo = sorted([*dynamo, "add"])
    assert dynamo == legacy


def test_onnxsim_differs_by_its_fused_layer_norm_alone(imported):
    found = kinds(imported)
    legacy, simplified = found["legacy", False], found["legacy-sim", False]
    norms = simplified.count("nn.layer_norm")
    assert norms == 3
    without = [name for name in simplified if name != "nn.layer_norm"]
    assert sorted(without + LAYER_NORM * norms) == legacy


@pytest.mark.parametrize("form", FORMS)
def test_binary_weights_are_two_levels(imported, form):
    binary = [w for w in constants(imported[form, False].module, "matmul") if w.shape[1] != 5]
    assert len(binary) == 4
    for weight in binary:
        assert len(np.unique(np.abs(weight))) == 1


def test_weights_are_the_baked_ones_bit_for_bit(imported, network):
    baked = bake_weights(network)
    names = ["blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]
    expected = [baked.get_submodule(name).weight.detach().numpy().T for name in names]
    module = imported["legacy", False].module
    found = [w for w in constants(module, "matmul") if w.shape[1] != 5]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    (kernel,) = constants(module, "nn.conv2d")
    np.testing.assert_array_equal(kernel, baked.patch_embed.proj.weight.detach().numpy())


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((IMAGES, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def reference(network, images):
    return reference_logits(network, images, batch=BATCH)


def exact_images(run, images, reference):
    logits = np.concatenate([run(images[i : i + BATCH])[0] for i in range(0, IMAGES, BATCH)])
    return int((np.abs(logits - reference).max(1) < 1e-5).sum())


@pytest.mark.parametrize(
    "form", ["legacy", "legacy-sim", pytest.param("dynamo", marks=pytest.mark.slow)]
)
def test_as_many_images_are_exact_as_in_onnx_runtime_on_baked_weights(
    imported, network, images, reference, form, tmp_path
):
    """The contract counts exact images; dynamic and dynamo-sim are structurally equal to these."""
    baked = export(bake_weights(network), tmp_path / "baked.onnx", "legacy", batch=BATCH)
    model = onnx.load(baked)
    theirs = exact_images(lambda x: run_onnx(model, x), images, reference)
    module = imported[form, False].module
    ours = exact_images(lambda x: run_relax(module, x), images, reference)
    assert ours >= theirs - 1
    assert ours >= IMAGES // 2
