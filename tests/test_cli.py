"""The command line as a user meets it: exit codes, sentences, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gsb_tvm.cli import VERBS
from tests import tiny_models as tiny
from tests.commandline import ROOT, CommandLine, Done

NATIVE = ("--target", "native")
PROGRESS = re.compile(r" *\d+\.\d s  [a-z]+")


@pytest.fixture(scope="module")
def gsb() -> Iterator[CommandLine]:
    with CommandLine() as command:
        yield command


def save(folder: Path, model: onnx.ModelProto, name: str = "m.onnx") -> str:
    (folder / name).write_bytes(model.SerializeToString())
    return name


def refused(done: Done, code: int, *words: str) -> None:
    """One sentence on stderr, nothing but progress on stdout, no file left."""
    assert done.code == code, done
    assert done.err.startswith("error: "), done.err
    assert "Traceback" not in done.err
    assert done.err.count("\n") == 1, done.err
    assert len(done.err) < 700
    for word in words:
        assert word in done.err, done.err
    assert all(PROGRESS.fullmatch(line) for line in done.out.splitlines()), done.out
    assert done.left == set()


# Kinds of bad models: each writes what it needs into the folder and names the file to compile.


def missing(folder: Path) -> str:
    return "nothing.onnx"


def a_folder(folder: Path) -> str:
    (folder / "d").mkdir()
    return "d"


def empty(folder: Path) -> str:
    (folder / "m.onnx").touch()
    return "m.onnx"


def text(folder: Path) -> str:
    (folder / "m.onnx").write_text("this is no model\n" * 50)
    return "m.onnx"


def noise(folder: Path) -> str:
    (folder / "m.onnx").write_bytes(np.random.default_rng(0).bytes(4000))
    return "m.onnx"


def checkpoint(folder: Path) -> str:
    (folder / "m.pth").write_bytes(b"PK\x03\x04" + bytes(500))
    return "m.pth"


def truncated(folder: Path) -> str:
    data = tiny.binary_linear().SerializeToString()
    (folder / "m.onnx").write_bytes(data[: len(data) // 2])
    return "m.onnx"


def one_byte_short(folder: Path) -> str:
    (folder / "m.onnx").write_bytes(tiny.binary_linear().SerializeToString()[:-1])
    return "m.onnx"


def a_pipe(folder: Path) -> str:
    os.mkfifo(folder / "m.onnx")
    return "m.onnx"


def a_loop_of_links(folder: Path) -> str:
    (folder / "m.onnx").symlink_to("m.onnx")
    return "m.onnx"


def name_too_long(folder: Path) -> str:
    return "x" * 300 + ".onnx"


def _external(folder: Path, location: str, length: int | None = None) -> str:
    made = tiny.float_linear()
    tensor = made.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length or size))):
        tensor.external_data.add(key=key, value=value)
    return save(folder, made)


def external_missing(folder: Path) -> str:
    return _external(folder, "m.data")


def external_parent(folder: Path) -> str:
    (folder / "inner").mkdir()
    (folder / "m.data").write_bytes(bytes(8000))
    _external(folder / "inner", "../m.data")
    return "inner/m.onnx"


def external_absolute(folder: Path) -> str:
    return _external(folder, "/etc/passwd")


def external_link(folder: Path) -> str:
    (folder / "m.data").symlink_to("/etc/passwd")
    return _external(folder, "m.data")


def external_short(folder: Path) -> str:
    (folder / "m.data").write_bytes(bytes(10))
    return _external(folder, "m.data")


def external_huge(folder: Path) -> str:
    (folder / "m.data").write_bytes(bytes(10))
    return _external(folder, "m.data", 10**18)


def nan_weight(folder: Path) -> str:
    array = tiny.weight()
    array[3, 4] = np.nan
    return save(folder, tiny.float_linear(array))


def infinite_weight(folder: Path) -> str:
    array = tiny.weight()
    array[3, 4] = np.inf
    return save(folder, tiny.float_linear(array))


def double_weight(folder: Path) -> str:
    return save(
        folder, tiny.float_linear(tiny.weight().astype(np.float64), dtype=TensorProto.DOUBLE)
    )


def weight_too_small(folder: Path) -> str:
    made = tiny.float_linear()
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-8]
    return save(folder, made)


def shapes_do_not_fit(folder: Path) -> str:
    return save(folder, tiny.float_linear(tiny.weight(tiny.FEATURES + 1)))


def text_input(folder: Path) -> str:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return save(folder, tiny.model(nodes, {}, dtype=TensorProto.STRING))


def _one_node(folder: Path, op: str, domain: str = "", **attributes: object) -> str:
    nodes = [helper.make_node(op, ["x"], ["y"], name="odd", domain=domain, **attributes)]
    opsets = [helper.make_opsetid(domain, 1)] if domain else []
    return save(folder, tiny.model(nodes, {}, opsets=opsets))


def unsupported_operator(folder: Path) -> str:
    return _one_node(folder, "Hardmax")


def unknown_operator(folder: Path) -> str:
    return _one_node(folder, "Fnord")


def foreign_domain(folder: Path) -> str:
    return _one_node(folder, "Gelu", "com.acme")


def contrib_domain(folder: Path) -> str:
    return _one_node(folder, "Gelu", "com.microsoft")


def control_flow(folder: Path) -> str:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["y"], name="odd", then_branch=body, else_branch=body)
    return save(folder, tiny.model([node], {"c": np.array(True)}))


def opset_too_old(folder: Path) -> str:
    return save(folder, tiny.binary_linear(opset=9))


def opset_too_new(folder: Path) -> str:
    return save(folder, tiny.binary_linear(opset=99))


def symbolic_tokens(folder: Path) -> str:
    return save(
        folder,
        tiny.binary_linear(
            shape=("n", "tokens", tiny.FEATURES), out_shape=("n", "tokens", tiny.COLUMNS)
        ),
    )


def no_nodes(folder: Path) -> str:
    return save(folder, tiny.model([], {}))


def no_outputs(folder: Path) -> str:
    made = tiny.binary_linear()
    del made.graph.output[:]
    return save(folder, made)


def no_graph(folder: Path) -> str:
    return save(folder, onnx.ModelProto(ir_version=8))


def name_used_twice(folder: Path) -> str:
    made = tiny.binary_linear()
    made.graph.node.append(made.graph.node[0])
    return save(folder, made)


def not_sorted(folder: Path) -> str:
    made = tiny.binary_linear()
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return save(folder, made)


def value_from_nowhere(folder: Path) -> str:
    return save(folder, tiny.model([helper.make_node("Add", ["x", "ghost"], ["y"])], {}))


def output_of_nobody(folder: Path) -> str:
    return save(folder, tiny.model([helper.make_node("Relu", ["x"], ["z"])], {}))


def declared_shape_contradicts(folder: Path) -> str:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"], name="odd")]
    return save(folder, tiny.model(nodes, {"s": np.array([7, 7], np.int64)}))


def sparse_weight(folder: Path) -> str:
    made = tiny.float_linear()
    values = numpy_helper.from_array(np.ones(2, np.float32), "sp")
    indices = numpy_helper.from_array(np.array([0, 1], np.int64))
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    return save(folder, made)


def own_functions(folder: Path) -> str:
    made = tiny.binary_linear()
    made.functions.append(
        helper.make_function(
            "own",
            "F",
            ["a"],
            ["b"],
            [helper.make_node("Relu", ["a"], ["b"])],
            [helper.make_opsetid("", 17)],
        )
    )
    return save(folder, made)


# Each with a word that its sentence holds, so that none is refused for another reason.
BAD_MODELS: dict[Callable[[Path], str], str] = {
    missing: "no such file",
    a_folder: "not a regular file",
    empty: "empty",
    text: "not an ONNX model",
    noise: "not an ONNX model",
    checkpoint: "not an ONNX model",
    truncated: "damaged",
    one_byte_short: "damaged",
    a_pipe: "not a regular file",
    a_loop_of_links: "symbolic links",
    name_too_long: "cannot be read",
    external_missing: "missing",
    external_parent: "../m.data",
    external_absolute: "/etc/passwd",
    external_link: "link",
    external_short: "which has 10",
    external_huge: "length",
    nan_weight: "NaN",
    infinite_weight: "infinity",
    double_weight: "float32",
    weight_too_small: 'tensor "w"',
    shapes_do_not_fit: "/layer/MatMul",
    text_input: "STRING",
    unsupported_operator: "Hardmax",
    unknown_operator: "Fnord",
    foreign_domain: "com.acme",
    contrib_domain: "com.microsoft",
    control_flow: "control flow",
    opset_too_old: "opset 9",
    opset_too_new: "opset 99",
    symbolic_tokens: '"tokens"',
    no_nodes: "no nodes",
    no_outputs: "no outputs",
    no_graph: "no ONNX graph",
    name_used_twice: "used twice",
    not_sorted: "nothing before it",
    value_from_nowhere: '"ghost"',
    output_of_nobody: 'output "y"',
    declared_shape_contradicts: '"odd"',
    sparse_weight: "sparse",
    own_functions: "functions",
}


@pytest.mark.parametrize("make", BAD_MODELS, ids=lambda make: make.__name__)
def test_a_bad_model_exits_3(gsb, tmp_path, make):
    name = make(tmp_path)
    refused(gsb(tmp_path, "compile", name, *NATIVE, "-o", "out.so"), 3, BAD_MODELS[make])


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


@pytest.mark.parametrize("limit", [0, 100, 4_000, 20_000])
def test_a_full_disk_exits_2(gsb, tmp_path, limit):
    model = save(tmp_path, tiny.binary_linear())
    refused(gsb(tmp_path, "compile", model, *NATIVE, file_bytes=limit), 2)


def test_a_full_disk_keeps_the_old_artefact(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    (tmp_path / "out.so").write_bytes(b"old")
    refused(gsb(tmp_path, "compile", model, *NATIVE, "-o", "out.so", file_bytes=20_000), 2)
    assert (tmp_path / "out.so").read_bytes() == b"old"


def test_full_standard_output_exits_2(gsb, tmp_path):
    done = gsb(tmp_path, "targets", stdout="/dev/full")
    assert (done.code, done.err.count("\n")) == (2, 1), done


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write and read everywhere")
def test_no_permission_exits_2_and_3(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    (tmp_path / "shut").mkdir(mode=0o500)
    refused(gsb(tmp_path, "compile", model, "-o", "shut/out.so"), 2, "permission")
    (tmp_path / model).chmod(0)
    refused(gsb(tmp_path, "compile", model), 3, "ermission")


def test_compiles_verifies_runs_inspects(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    done = gsb(tmp_path, "compile", model, *NATIVE, "--strict", "-o", "out.so")
    assert done.code == 0, done
    assert done.err == ""
    assert done.left == {"out.so", "out.json"}
    assert "1 of 1 operators packed" in done.out
    assert "8 of 8 samples equal ONNX Runtime" in done.out
    x = np.random.default_rng(1).standard_normal((1, tiny.TOKENS, tiny.FEATURES), np.float32)
    np.save(tmp_path / "x.npy", x)
    done = gsb(tmp_path, "run", "out.so", "--input", "x=x.npy", "-o", "y.npz")
    assert done.code == 0, done
    bias = np.linspace(-1, 1, tiny.COLUMNS, dtype=np.float32)
    expected = np.sign(x) @ tiny.binary_weight() + bias
    np.testing.assert_allclose(np.load(tmp_path / "y.npz")["y"], expected, rtol=1e-6, atol=1e-6)
    done = gsb(tmp_path, "inspect", "out.so", "--json")
    assert json.loads(done.out)["layers"][0]["form"] == "packed"
    assert gsb(tmp_path, "inspect", "out.so").out.startswith("operator")
    done = gsb(tmp_path, "verify", "out.so", model, "--json")
    assert (done.code, json.loads(done.out)["verdict"]) == (0, "ok")
    other = save(tmp_path, tiny.binary_linear(seed=1), "other.onnx")
    done = gsb(tmp_path, "verify", "out.so", other)
    assert (done.code, done.err.count("\n")) == (6, 1), done


def test_json_is_one_object(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    done = gsb(tmp_path, "compile", model, *NATIVE, "--json")
    assert (done.code, done.err) == (0, ""), done
    found = json.loads(done.out)
    assert found["layers"]["total"] == found["layers"]["packed"] == 1
    assert found["layers"]["float"] == 0
    assert found["layers"]["rows"][0]["shape"] == [tiny.TOKENS, tiny.FEATURES, tiny.COLUMNS]
    assert found["verify"]["verdict"] == "ok"
    assert found["seconds"] > 0
    assert done.left == {found["artefact"], found["artefact"].replace(".so", ".json")}
    assert found["bytes"] == (tmp_path / found["artefact"]).stat().st_size
    assert "-mcpu=" in found["target"]


def test_verification_is_skipped_when_asked_and_without_onnxruntime(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    asked = gsb(tmp_path, "compile", model, *NATIVE, "--no-verify", "--json")
    assert json.loads(asked.out)["verify"] == {"verdict": "skipped", "checks": []}
    absent = gsb(tmp_path, "compile", model, *NATIVE, "--json", without=("onnxruntime",))
    check = json.loads(absent.out)["verify"]["checks"][0]
    assert check["verdict"] == "skipped"
    assert "onnxruntime is not installed" in check["reason"]


def test_a_foreign_target_is_linked_and_verified(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    done = gsb(tmp_path, "compile", model, "--target", "llvm", "-mcpu=cortex-a72", "--json")
    if done.code == 4:
        pytest.skip("no cross linker")
    assert done.code == 0, done
    assert done.left == {"m-cortex-a72.so", "m-cortex-a72.json"}
    checks = {c["where"]: c["verdict"] for c in json.loads(done.out)["verify"]["checks"]}
    assert checks["host build"] == "ok"
    assert checks["emulated"] in ("ok", "skipped")
    refused(gsb(tmp_path, "run", "m-cortex-a72.so"), 2, "aarch64")


@pytest.mark.parametrize(
    "words",
    [
        ["--target", "llvm", "-mcpu=haswell", "m.onnx", "--no-verify", "--json"],
        ["m.onnx", "--json", "--target", "llvm", "-mcpu", "haswell", "--no-verify"],
        ["--target=llvm -mcpu=haswell", "--json", "--no-verify", "m.onnx"],
        ["m.onnx", "--target", '{"kind": "llvm", "mcpu": "haswell"}', "--no-verify", "--json"],
    ],
)
def test_a_target_is_taken_as_typed(gsb, tmp_path, words):
    save(tmp_path, tiny.binary_linear())
    done = gsb(tmp_path, "compile", *words)
    assert (done.code, done.err) == (0, ""), done
    assert done.left == {"m-haswell.so", "m-haswell.json"}
    assert "-mcpu=haswell" in json.loads(done.out)["target"]


def test_dump_ir_writes_each_stage(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    done = gsb(tmp_path, "compile", model, *NATIVE, "--dump-ir", "ir", "-o", "out.so")
    assert done.code == 0, done
    names = sorted(path.name for path in (tmp_path / "ir").iterdir())
    assert names[0] == "00_Import.py"
    assert names[-2:] == ["model.ll", "model.s"]
    assert [name[:2] for name in names[:-2]] == [f"{i:02d}" for i in range(len(names) - 2)]
    assert "gsb.matmul" in (tmp_path / "ir" / "02_RecognizePlanes.py").read_text()
    assert "define" in (tmp_path / "ir" / "model.ll").read_text()


@pytest.mark.parametrize("name", ["RecognizePlanes", "gsb.recognizeplanes"])
def test_stop_after_prints_the_module(gsb, tmp_path, name):
    model = save(tmp_path, tiny.binary_linear())
    done = gsb(tmp_path, "compile", model, *NATIVE, "--stop-after", name)
    assert (done.code, done.err, done.left) == (0, "", set())
    assert "gsb.matmul" in done.out
    assert "gsb.dense" not in done.out


def test_strict_exits_5_for_a_binary_operator_in_float(gsb, tmp_path):
    model = save(tmp_path, tiny.float_linear(tiny.binary_weight()))
    refused(gsb(tmp_path, "compile", model, *NATIVE, "--strict"), 5, "layer_MatMul", "float")
    assert gsb(tmp_path, "compile", model, *NATIVE).code == 0


def test_strict_accepts_an_operator_that_was_never_binary(gsb, tmp_path):
    model = save(tmp_path, tiny.float_linear())
    assert gsb(tmp_path, "compile", model, *NATIVE, "--strict").code == 0


def test_no_linker_exits_4_and_leaves_the_objects(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    empty_path = str(tmp_path / ".tmp")
    done = gsb(
        tmp_path, "compile", model, *NATIVE, "-o", "out.so", path=empty_path, without=("ziglang",)
    )
    assert done.code == 4, done
    assert "ziglang" in done.err
    assert done.left == {"out.o", "out.data.o"}


def test_a_failed_verification_exits_6_and_leaves_nothing(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    patch = (
        "from gsb_tvm.runtime.session import Module\n"
        "run = Module.run\n"
        "Module.run = lambda self, inputs: [array + 1 for array in run(self, inputs)]\n"
    )
    done = gsb(tmp_path, "compile", model, *NATIVE, "--json", patch=patch)
    refused(done, 6, "ONNX Runtime")


def test_an_internal_error_exits_1(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    patch = "import gsb_tvm.driver as d\nd.link = lambda *_: 1 / 0"
    done = gsb(tmp_path, "compile", model, *NATIVE, "--json", patch=patch)
    refused(done, 1, "internal error", "ZeroDivisionError", "--verbose")
    done = gsb(tmp_path, "compile", model, *NATIVE, "--json", "--verbose", patch=patch)
    assert done.code == 1
    assert "Traceback" in done.err


@pytest.mark.parametrize("ffi", ["0.1.15.post1", "0.1.13", ""])
def test_a_wrong_tvm_pair_exits_4_and_names_the_cure(gsb, tmp_path, ffi):
    patch = (
        "import gsb_tvm.dialect.versions as v\n"
        "found = v.installed\n"
        f"v.installed = lambda name: {ffi!r} if name == 'apache-tvm-ffi' else found(name)\n"
    )
    refused(gsb(tmp_path, "compile", patch=patch), 4, "apache-tvm-ffi", "pip install")


def test_an_interrupt_exits_130_and_leaves_nothing(tmp_path):
    save(tmp_path, tiny.binary_linear())
    temporary = tmp_path / ".tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "gsb_tvm.compile", "m.onnx", "-o", "out.so"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "generate" in line:
            break
    time.sleep(0.1)  # somewhere within code generation, or just behind it
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "error: interrupted.\n")
    assert {path.name for path in tmp_path.iterdir()} == {".tmp", "m.onnx"}
    assert list(temporary.iterdir()) == []


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = f"{sys.executable} -m gsb_tvm.cli targets --verbose | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")


HEAVY = {"tvm", "onnx", "torch", "numpy", "onnxruntime", "rich", "tvm_ffi"}


@pytest.mark.parametrize(
    "argv",
    [["--help"], *([verb, "--help"] for verb in VERBS)],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(argv):
    code = (
        "import sys\nfrom gsb_tvm import cli\n"
        f"code = cli.main({argv!r})\n"
        "print(' '.join(sorted(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: gsb-tvm")
    assert HEAVY.isdisjoint(done.stderr.split())


@pytest.mark.parametrize("verb", ["compile", "run", "verify", "inspect", "doctor", "completion"])
def test_each_verb_is_a_module_too(verb):
    done = subprocess.run(
        [sys.executable, "-m", f"gsb_tvm.{verb}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"usage: python -m gsb_tvm.{verb}")


def test_targets_and_doctor(gsb, tmp_path):
    listed = gsb(tmp_path, "targets")
    assert listed.code == 0
    assert "cortex-a72" in listed.out
    shown = gsb(tmp_path, "targets", "llvm", "-mcpu=cortex-a72")
    assert "-mtriple=aarch64-linux-gnu" in shown.out
    checked = gsb(tmp_path, "doctor")
    assert checked.code == 0, checked
    assert "TVM" in checked.out
    absent = gsb(tmp_path, "doctor", without=("ziglang",), path=str(tmp_path))
    assert (absent.code, "MISSING linker for" in absent.out) == (4, True), absent


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_verb(gsb, tmp_path, shell):
    done = gsb(tmp_path, "completion", shell)
    assert (done.code, done.err) == (0, "")
    assert all(verb in done.out for verb in VERBS)
    assert "--dump-ir" in done.out
    refused(gsb(tmp_path, "completion", shell, without=("shtab",)), 4, "pip install")


def test_without_a_terminal_there_are_no_escape_codes(gsb, tmp_path):
    model = save(tmp_path, tiny.binary_linear())
    done = gsb(tmp_path, "compile", model, *NATIVE, "--no-verify")
    assert "\x1b" not in done.out + done.err


def test_without_a_model_the_demo_is_compiled(gsb, tmp_path):
    done = gsb(tmp_path, "compile", "--strict", "--json")
    assert (done.code, done.err) == (0, ""), done
    found = json.loads(done.out)
    assert found["layers"]["packed"] == 12  # 8 linears, 2 scores, 2 products with values
    assert found["layers"]["float"] == 3  # patch embedding and two heads
    assert found["verify"]["verdict"] == "ok"
    assert done.left == {found["artefact"], found["artefact"].replace(".so", ".json")}


def test_equal_commands_give_equal_bytes(tmp_path):
    """In other folders, and with other orders of sets and dictionaries."""
    artefacts = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        save(folder, tiny.binary_linear())
        subprocess.run(
            [sys.executable, "-m", "gsb_tvm.compile", "m.onnx", "--no-verify", "-o", "out.so"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        )
        artefacts.append((folder / "out.so").read_bytes() + (folder / "out.json").read_bytes())
    assert artefacts[0] == artefacts[1]
