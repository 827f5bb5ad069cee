"""The command line as a user meets it: its verbs, what they print and leave, and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gsb_tvm import command
from gsb_tvm.cli import VERBS
from tests import tiny_models as tiny
from tests.commandline import NATIVE, ROOT, refused
from tests.tiny_models import save


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
    (tmp_path / "x.txt").write_text("0.5 0.5\n")
    done = gsb(tmp_path, "run", "out.so", "--input", "x.txt")
    said = "error: x.txt: not a whole .npy file of numbers. Write it with numpy.save.\n"
    assert (done.code, done.err) == (2, said)
    done = gsb(tmp_path, "inspect", "out.so", "--json")
    assert json.loads(done.out)["programs"][0]["layers"][0]["form"] == "packed"
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


def test_an_interrupt_that_a_library_swallowed(capsys):
    def execute(_args) -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)  # the signal arrives in the first of these
        except KeyboardInterrupt as err:
            raise RuntimeError from err
        return 0

    before = signal.getsignal(signal.SIGINT)
    assert command.run(command.Parser("x", "y"), execute, [], needs_tvm=False) == 130
    assert capsys.readouterr().err == "error: interrupted.\n"
    assert signal.getsignal(signal.SIGINT) is before


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


@pytest.mark.parametrize(
    "verb", ["compile", "run", "bench", "verify", "inspect", "paths", "doctor", "completion"]
)
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
    assert all(cpu in listed.out for cpu in ("cortex-a72", "cortex-a73", "cortex-x1", "apple-m1"))
    assert "raspberry-pi/3b-aarch64" in listed.out
    assert "arm/rasp3b" not in listed.out  # a 32-bit system
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
