"""Commands on artefacts for a GPU, on the stand-in for NVIDIA's driver (tests/libcuda)."""

import json
from functools import partial

import numpy as np
import pytest

from gsb_tvm.driver import compile_model
from gsb_tvm.options import Options
from gsb_tvm.targets import resolve
from tests import tiny_models as tiny
from tests.commandline import NATIVE, refused
from tests.libcuda.build import attaching, without_driver
from tests.libcuda.emulations import emulating
from tests.tiny_models import save

BATCHES = (1, 2)


@pytest.fixture(scope="module")
def folder(gsb, tmp_path_factory):
    """open.onnx, gpu.so of it for sm_90, which is emulated, cpu.so, and an input x.npy."""
    made = tmp_path_factory.mktemp("gpu")
    shapes = {"shape": ("n", tiny.TOKENS, tiny.FEATURES), "out_shape": ("n", 5, tiny.COLUMNS)}
    model = save(made, tiny.binary_linear(**shapes), "open.onnx")
    options = Options(made / "gpu.so", verify=False, batch=BATCHES)
    with emulating(made):
        compile_model(made / model, resolve("cuda -arch=sm_90"), options)
    done = gsb(made, "compile", model, *NATIVE, "--no-verify", "-o", "cpu.so")
    assert done.code == 0, done
    x = np.random.default_rng(0).standard_normal((1, tiny.TOKENS, tiny.FEATURES))
    np.save(made / "x.npy", x.astype(np.float32))
    return made


@pytest.fixture
def on_gpu(gsb, folder):
    """A command in the folder, on a machine with a GPU."""

    def command(*argv, **settings):
        return gsb(folder, *argv, patch=attaching(folder, **settings))

    return command


def test_run_gives_what_a_cpu_gives(gsb, folder, on_gpu):
    for place, run in (("gpu", on_gpu), ("cpu", lambda *argv: gsb(folder, *argv))):
        done = run("run", f"{place}.so", "--input", "x.npy", "-o", f"{place}.npz")
        assert (done.code, done.err) == (0, ""), done
    found, wanted = (np.load(folder / f"{place}.npz")["y"] for place in ("gpu", "cpu"))
    np.testing.assert_array_equal(found, wanted)


def test_verify_compares_what_the_gpu_computes(on_gpu):
    done = on_gpu("verify", "gpu.so", "open.onnx")
    assert (done.code, done.err) == (0, ""), done
    assert done.out.count("ok") == len(BATCHES)


def test_compile_compares_what_a_gpu_computes_where_there_is_one(gsb, folder, on_gpu):
    words = ("compile", "open.onnx", "--target", "cuda", "-arch=sm_90", "--batch", "1,2")
    words += ("-o", "again.so", "--json")
    for run, wanted in ((on_gpu, ["host build", "GPU 0"]), (partial(gsb, folder), ["host build"])):
        done = run(*words)
        assert (done.code, done.err) == (0, ""), done
        checks = json.loads(done.out)["verify"]["checks"]
        assert [(check["where"], check["batch"]) for check in checks] == [
            (place, batch) for batch in BATCHES for place in wanted
        ]
        assert {check["verdict"] for check in checks} == {"ok"}


@without_driver
@pytest.mark.parametrize(
    "words", [("run", "gpu.so"), ("bench", "gpu.so"), ("verify", "gpu.so", "open.onnx")]
)
def test_without_a_driver(gsb, folder, words):
    hints = ("gpu.so: made for sm_90: a GPU is needed", "no driver. Run it on a machine with")
    refused(gsb(folder, *words), 2, *hints)


def test_a_gpu_and_threads_are_of_different_artefacts(gsb, folder, on_gpu):
    refused(on_gpu("run", "gpu.so", "--threads", 2), 2, "gpu.so", "a GPU", "Leave --threads out")
    refused(gsb(folder, "run", "cpu.so", "--gpu", 0), 2, "cpu.so", "a CPU", "Leave --gpu out")
    refused(on_gpu("run", "gpu.so", "--gpu", 1), 2, "there is no GPU 1: this machine has 1")


def test_an_older_gpu(on_gpu):
    refused(on_gpu("run", "gpu.so", arch=80), 2, "gpu.so: made for sm_90", "-arch=sm_80")


def test_bench_counts_calls_that_are_waited_for_together(on_gpu):
    done = on_gpu("bench", "gpu.so", "--batch", 3, "--runs", 3, "--warmup", 1, "--json")
    assert (done.code, done.err) == (0, ""), done
    found = json.loads(done.out)
    assert (found["target"]["gpu"], found["images"], found["batches"]) == ("sm_90", 3, [2, 1])
    assert found["images_per_s"] == pytest.approx(3e3 / found["queued_ms"])
    assert found["runs"] == 3
    assert found["memory"]["call"] > 0


def test_the_table_of_bench_is_of_the_gpu(on_gpu):
    done = on_gpu("bench", "gpu.so", "--runs", 2, "--warmup", 0)
    assert (done.code, done.err) == (0, ""), done
    for word in ("for sm_90", "B on the GPU for a call", "inputs and outputs on the GPU", "queued"):
        assert word in done.out
    assert "thread" not in done.out


def test_bench_times_each_launch(on_gpu):
    done = on_gpu("bench", "gpu.so", "--batch", 2, "--profile", "--runs", 1, "--json")
    assert (done.code, done.err) == (0, ""), done
    profile = json.loads(done.out)["profile"]
    (layer,) = [line for line in profile["layers"] if line["macs"]]
    assert (layer["layer"], layer["macs"]) == ("layer_MatMul", 2 * 5 * 40 * 24)
    assert sum(line["us"] for line in profile["steps"]) == pytest.approx(profile["steps_us"])
    assert all(line["us"] > 0 and line["limit"] is None for line in profile["steps"])
    done = on_gpu("bench", "gpu.so", "--batch", 3, "--profile")
    refused(done, 2, "a batch of 3 is 2 + 1, and steps are those of one program")


@without_driver
def test_bench_compiles_nothing_for_a_gpu_that_is_not_there(gsb, folder):
    done = gsb(folder, "bench", "open.onnx", "--target", "cuda", "-arch=sm_90")
    refused(done, 2, "a GPU is needed, and there is no driver")
    assert not done.out


def test_inspect_needs_no_driver(gsb, folder):
    done = gsb(folder, "inspect", "gpu.so")
    assert (done.code, done.err) == (0, ""), done
    assert "a GPU of sm_90 or a later one, and NVIDIA's driver" in done.out
    programs = [line for line in done.out.splitlines() if line.startswith("program")]
    assert len(programs) == len(BATCHES)
    for batch, line in zip(BATCHES, programs, strict=True):
        assert f"batch {batch}, 2 launches" in line
    assert all("of machine code" in line and "of PTX" in line for line in programs)


def test_doctor_names_the_compiler_the_driver_and_gpus(on_gpu):
    done = on_gpu("doctor", gpus=2, arch=80)
    rows = [line for line in done.out.splitlines() if "GPU" in line or "CUDA" in line]
    assert [" ".join(row.split()) for row in rows] == [
        "ok CUDA driver for CUDA 13.0",
        "ok GPU 0 Stand-in GPU, sm_80",
        "ok GPU 1 Stand-in GPU, sm_80",
    ]
    assert "NVRTC" in done.out


def test_doctor_needs_neither(gsb, folder):
    done = gsb(folder, "doctor", without=("cuda", "cuda.bindings"))
    assert done.code == 0, done
    assert 'NVRTC not installed; for code for GPUs: pip install "gsb-tvm[cuda]"' in " ".join(
        done.out.split()
    )
    assert "only for running on GPUs" in done.out
