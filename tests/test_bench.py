"""``gsb-tvm bench``: what it prints and refuses; no test looks at how long anything takes."""

import json
import os

import numpy as np
import pytest

from tests import tiny_models as tiny
from tests.commandline import NATIVE, refused
from tests.tiny_models import save


@pytest.fixture(scope="module")
def folder(gsb, tmp_path_factory):
    """A folder with a model, its artefact, and an input."""
    found = tmp_path_factory.mktemp("bench")
    model = save(found, tiny.binary_linear())
    done = gsb(found, "compile", model, *NATIVE, "--no-verify", "-o", "out.so")
    assert done.code == 0, done
    np.save(found / "x.npy", np.ones((1, tiny.TOKENS, tiny.FEATURES), np.float32))
    return found


def figures(gsb, folder, *argv):
    done = gsb(folder, "bench", *argv, "--json")
    assert (done.code, done.err, done.left) == (0, "", set()), done
    return json.loads(done.out)


def test_figures_are_consistent(gsb, folder):
    found = figures(gsb, folder, "out.so", "--runs", 50, "--input", "x=x.npy")
    times = found["latency_ms"]
    order = [times[name] for name in ("min", "p5", "p25", "median", "p75", "p95", "p99", "max")]
    assert order == sorted(order)
    assert order[0] > 0
    assert (found["runs"], found["warmup"], found["threads"], found["images"]) == (50, 10, 1, 1)
    assert found["images_per_s"] == pytest.approx(1e3 / times["mean"])
    assert 0 <= found["preempted"] <= 50
    assert (found["quiet_ms"] is None) == (found["preempted"] == 50)
    assert found["memory"]["file"] == (folder / "out.so").stat().st_size
    assert 0 < found["memory"]["call"]
    assert 0 <= found["memory"]["added"] < found["memory"]["resident"]
    assert found["load_ms"] > 0
    assert found["first_ms"] > 0


def test_an_onnx_file_is_compiled_first(gsb, folder):
    save(folder, tiny.binary_linear(shape=("n", 5, 40), out_shape=("n", 5, 24)), "open.onnx")
    found = figures(gsb, folder, "open.onnx", *NATIVE, "--batch", 3, "--seconds", 0.01)
    assert found["images"] == 3
    assert found["model"] == "open.onnx"
    assert found["runs"] >= 1


def test_the_table_names_what_was_measured(gsb, folder):
    done = gsb(folder, "bench", "out.so", "--runs", 5, "--warmup", 0)
    assert (done.code, done.err) == (0, ""), done
    for word in ("m.onnx", "load", "memory", "5 after 0 to warm up, 1 thread", "images/s", "p99"):
        assert word in done.out


BAD_ARGUMENTS = {
    "artefact missing": (["none.so"], "none.so"),
    "no artefact": (["x.npy"], "x.npy"),
    "no runs": (["out.so", "--runs", "0"], "--runs"),
    "no time": (["out.so", "--seconds", "0"], "--seconds"),
    "warm-up": (["out.so", "--warmup", "-1"], "--warmup"),
    "no thread": (["out.so", "--threads", "0"], "threads"),
    "many threads": (["out.so", "--threads", "1000"], "1000 threads"),
    "batch of an artefact": (["out.so", "--batch", "2"], "--batch"),
    "target of an artefact": (["out.so", "--target", "native"], "--target"),
    "target that runs elsewhere": (
        ["m.onnx", "--target", "llvm", "-mcpu=cortex-a72"],
        "timed",
    ),
    "input missing": (["out.so", "--input", "none.npy"], "none.npy"),
    "two inputs": (["out.so", "--input", "x.npy", "--input", "x.npy"], "2 inputs"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_exit_2(gsb, folder, name):
    words, hint = BAD_ARGUMENTS[name]
    refused(gsb(folder, "bench", *words), 2, hint)


@pytest.fixture(scope="module")
def profiled(gsb, folder):
    """Figures of the demo model with a profile."""
    done = gsb(folder, "compile", "--no-verify", "-o", "demo.so", *NATIVE)
    assert done.code == 0, done
    return figures(gsb, folder, "demo.so", "--profile", "--runs", 200)


def test_a_profile_is_of_every_step(profiled, folder):
    (program,) = json.loads((folder / "demo.json").read_text())["programs"]
    steps = profiled["profile"]["steps"]
    assert [[line["kernel"], line["layer"]] for line in steps] == program["steps"]
    assert profiled["profile"]["runs"] == 200
    for lines in ("layers", "shapes", "kinds"):
        for total in ("us", "steps", "share"):
            expected = sum(line[total] for line in steps)
            assert sum(line[total] for line in profiled["profile"][lines]) == pytest.approx(
                expected
            )


def test_the_steps_take_no_longer_than_the_run(profiled):
    found = profiled["profile"]
    assert found["steps_us"] == pytest.approx(sum(line["us"] for line in found["steps"]))
    assert found["rest_us"] == pytest.approx(found["whole_us"] - found["steps_us"])
    assert 0 < found["steps_us"] < 1.05 * found["whole_us"]
    assert all(line["us"] >= 0 for line in found["steps"])


def test_every_layer_of_the_report_is_in_the_profile(profiled, folder):
    (program,) = json.loads((folder / "demo.json").read_text())["programs"]
    rows = program["layers"]
    layers = {line["layer"]: line for line in profiled["profile"]["layers"]}
    assert {row["name"] for row in rows} <= set(layers)
    for row in rows:
        assert layers[row["name"]]["macs"] == row["macs"]


def test_work_and_its_limit_stand_beside_the_time(profiled):
    kinds = {line["kind"]: line for line in profiled["profile"]["kinds"]}
    # A kernel's name says also by what instructions: dense_words and others.
    (dense,) = (line for kind, line in kinds.items() if kind.startswith("dense"))
    assert dense["gmacs"] == pytest.approx(dense["macs"] / dense["us"] / 1e3)
    assert dense["limit"] > 0
    for kind in ("attention_planes", "attention_value", "binarize", "value_planes"):
        assert kinds[kind]["limit"] > 0
        assert kinds[kind]["bytes"] > 0
    assert kinds["binarize"]["macs"] is None
    assert kinds["linear"]["limit"] > 0
    assert [kinds["float"][name] for name in ("macs", "gmacs", "bytes", "limit")] == [None] * 4


def test_the_limit_can_be_left_out(gsb, folder, profiled):
    found = figures(gsb, folder, "demo.so", "--profile", "--no-limit", "--runs", 2)["profile"]
    assert {line["limit"] for line in found["steps"]} == {None}
    assert [line["macs"] for line in found["steps"]] == [
        line["macs"] for line in profiled["profile"]["steps"]
    ]


def test_the_tables_name_steps_layers_and_operators(gsb, folder, profiled):
    done = gsb(folder, "bench", "demo.so", "--profile", "--no-limit", "--runs", 2)
    assert (done.code, done.err) == (0, ""), done
    titles = [line.split()[0] for line in done.out.splitlines() if " share " in line]
    assert titles == ["step", "layer", "operator", "operator"]
    assert "blocks_1_mlp_fc2_MatMul" in done.out
    assert f"{len(profiled['profile']['steps'])} steps take" in done.out


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("steps=()", "what its steps are"),
        ('kernels={"binarize": "Sparse {}"}', '"binarize" is of'),
    ],
)
def test_an_artefact_of_another_compiler_is_refused(gsb, folder, profiled, change, hint):
    patch = (
        "import msgspec\n"
        "from gsb_tvm.runtime import metadata\n"
        "parse, replace = metadata.parse, msgspec.structs.replace\n"
        "def changed(*args):\n"
        "    found = parse(*args)\n"
        f"    return found.only(replace(found.program, {change}))\n"
        "metadata.parse = changed\n"
    )
    done = gsb(folder, "bench", "demo.so", "--profile", patch=patch)
    refused(done, 2, "demo.so", hint, "Compile the model again")


def test_a_bad_model_exits_3(gsb, folder):
    (folder / "bad.onnx").write_bytes(b"no model")
    refused(gsb(folder, "bench", "bad.onnx", *NATIVE), 3, "bad.onnx")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_two_threads_run_it_too(gsb, folder):
    outputs = []
    for threads in (1, 2):
        done = gsb(folder, "run", "out.so", "--threads", threads, "-o", f"y{threads}.npz")
        assert done.code == 0, done
        outputs.append(np.load(folder / f"y{threads}.npz")["y"])
    np.testing.assert_array_equal(*outputs)
    assert figures(gsb, folder, "out.so", "--threads", 2, "--runs", 3)["threads"] == 2


def test_run_refuses_no_threads(gsb, folder):
    refused(gsb(folder, "run", "out.so", "--threads", 0), 2, "0 threads")
