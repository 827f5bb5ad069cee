"""Bad arguments as a user types them: exit code 2, one sentence, and no file left."""

import pytest

from tests import tiny_models as tiny
from tests.commandline import NATIVE, refused
from tests.tiny_models import save


@pytest.mark.parametrize(("batch", "code"), [(3, 3), (0, 2), (-1, 2)])
def test_a_batch_that_does_not_fit_is_refused(gsb, tmp_path, batch, code):
    model = save(tmp_path, tiny.binary_linear())
    refused(gsb(tmp_path, "compile", model, *NATIVE, "--batch", batch), code, "batch")


BAD_ARGUMENTS = {
    "no verb": [],
    "unknown verb": ["compil", "m.onnx"],
    "unknown flag": ["compile", "m.onnx", "--jsn"],
    "abbreviated flag": ["compile", "m.onnx", "--str"],
    "two models": ["compile", "m.onnx", "n.onnx"],
    "batch no number": ["compile", "m.onnx", "--batch", "two"],
    "output without value": ["compile", "m.onnx", "-o"],
    "target without value": ["compile", "m.onnx", "--target"],
    "empty target": ["compile", "m.onnx", "--target", ""],
    "option for target": ["compile", "m.onnx", "-mcpu=haswell"],
    "CPU mistyped": ["compile", "m.onnx", "--target", "llvm", "-mcpu=cortex-a27"],
    "CPU mistyped, quoted": ["compile", "m.onnx", "--target", "llvm -mcpu=hasvell"],
    "feature mistyped": ["compile", "m.onnx", "--target", "llvm", "-mattr=+avx3"],
    "feature without sign": ["compile", "m.onnx", "--target", "llvm", "-mattr=avx2"],
    "tag mistyped": ["compile", "m.onnx", "--target", "raspberry-pi/4b-aarch46"],
    "kind mistyped": ["compile", "m.onnx", "--target", "lvm"],
    "CPU as kind": ["compile", "m.onnx", "--target", "haswell"],
    "option of target mistyped": ["compile", "m.onnx", "--target", "llvm", "-mpcu=haswell"],
    "CPU and triple differ": [
        *("compile", "m.onnx", "--target", "llvm"),
        *("-mcpu=cortex-a72", "-mtriple=x86_64-linux-gnu"),
    ],
    "broken JSON": ["compile", "m.onnx", "--target", '{"kind": "llvm"'],
    "no code for kind": ["compile", "m.onnx", "--target", "vulkan"],
    "cuda": ["compile", "m.onnx", "--target", "cuda"],
    "pass mistyped": ["compile", "m.onnx", "--stop-after", "PakDense"],
    "no such folder": ["compile", "m.onnx", "-o", "nowhere/out.so"],
    "output is a folder": ["compile", "m.onnx", "-o", "."],
    "output in a file": ["compile", "m.onnx", "-o", "m.onnx/out.so"],
    "output is the model": ["compile", "m.onnx", "-o", "m.onnx"],
    "output is the metadata": ["compile", "m.onnx", "-o", "out.json"],
    "read-only folder": ["compile", "m.onnx", "-o", "/proc/out.so"],
    "output name too long": ["compile", "m.onnx", "-o", "x" * 300],
    "dump into a file": ["compile", "m.onnx", "--dump-ir", "m.onnx"],
    "dump into a read-only folder": ["compile", "m.onnx", "--dump-ir", "/proc/dump"],
    "artefact missing": ["run", "m.so"],
    "artefact is a model": ["inspect", "m.onnx"],
    "no samples": ["verify", "m.so", "m.onnx", "--samples", "0"],
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_exit_2(gsb, tmp_path, name):
    save(tmp_path, tiny.binary_linear())
    refused(gsb(tmp_path, *BAD_ARGUMENTS[name]), 2)
