import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import instructions
from counting import loops, onnx_runtime, ours, plugin, records, steps, table
from counting.plugin import Block
from counting.records import Figure
from gsb_tvm.dialect.errors import GsbError, ToolchainError, UsageError, VerifyError
from gsb_tvm.models import demo
from gsb_tvm.targets import resolve

DEMO = Path(demo.__file__).with_name("gsb_digits.onnx")
RECORDS = Path(instructions.__file__).with_name("records") / "instructions.json"
CROSS = shutil.which("aarch64-linux-gnu-gcc")
MCA = any(shutil.which(f"llvm-mca{version}") for version in loops._VERSIONS)

# 3 instructions 1000 times and one behind them lie between the marks.
KNOWN = """\
.globl _start
_start:
  mov x1, #1000
  hint #96
1:
  subs x1, x1, #1
  mrs x2, cntvct_el0
  b.ne 1b
  nop
  hint #97
  mov x0, #{status}
  mov x8, #93
  svc #0
"""


def lacks() -> str:
    try:
        plugin.emulator()
    except ToolchainError as err:
        return str(err)
    return "" if CROSS else "aarch64-linux-gnu-gcc is missing"


needs_tools = pytest.mark.skipif(bool(lacks()), reason=lacks() or "nothing is missing")


def program(folder: Path, *, status: int = 0) -> Path:
    source, out = folder / "known.S", folder / "known"
    source.write_text(KNOWN.format(status=status))
    command = [str(CROSS), "-nostdlib", "-static", "-o", str(out), str(source)]
    subprocess.run(command, check=True)
    return out


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> ours.Counted:
    folder = tmp_path_factory.mktemp("counted")
    return ours.counted(DEMO, resolve("llvm -mcpu=cortex-a72"), "cortex-a72", folder)


@needs_tools
def test_a_program_of_known_length(tmp_path):
    (section,) = plugin.count("cortex-a72", [str(program(tmp_path))], tmp_path)
    assert section.instructions == 3001
    assert section.ticks == tuple(range(1, 3000, 3))
    last = (tmp_path / "counts.txt").read_text().splitlines()[-2:]
    assert last == ["program 3007", "threads 1"]


@needs_tools
def test_a_program_that_fails(tmp_path):
    with pytest.raises(VerifyError, match="emulated cortex-a72: the program ended with 7"):
        plugin.count("cortex-a72", [str(program(tmp_path, status=7))], tmp_path)


def test_threads_are_refused():
    with pytest.raises(VerifyError, match="started 2 threads, expected one"):
        plugin.sections("section 12\nprogram 20\nthreads 2\n")


@needs_tools
def test_the_same_twice(counted, tmp_path):
    command = [str(counted.file), str(counted.file.with_name("images"))]
    again = plugin.count("cortex-a72", command, tmp_path)
    assert again == [counted.whole, counted.timed]


@needs_tools
def test_steps_add_up(counted):
    rows = steps.rows(counted, "demo")
    ticks = counted.timed.ticks
    assert sum(row.instructions for row in rows) == ticks[-1] - ticks[0]
    # Kernels inlined into the call with a clock are other code: a few instructions in a thousand.
    assert sum(counted.steps) == pytest.approx(counted.whole.instructions, rel=0.01)
    assert sum(row.calls for row in rows) == len(counted.program.steps)
    assert sum(row.macs for row in steps.by_kind(rows)) == sum(row.macs for row in rows) > 0


@needs_tools
def test_blocks_are_the_instructions_of_their_step(counted):
    for blocks, expected in zip(counted.step_blocks, counted.steps, strict=True):
        found = sum(block.instructions * block.executions for block in blocks)
        # The blocks with the ticks are counted in one of the two spans that they are in.
        assert abs(found - expected) <= 100


@needs_tools
def test_the_whole_keeps_to_its_record(counted):
    figure = Figure("gsb_digits", "ours", "cortex-a72", counted.whole.instructions)
    assert records.excess([figure], records.read(RECORDS)) == []


@needs_tools
def test_tables_json_and_records_of_a_run_that_fails_its_check(tmp_path, capsys):
    path, old, new = (tmp_path / name for name in ("figures.json", "old.json", "new.json"))
    records.record(old, [Figure("gsb_digits", "ours", "cortex-a72", 100_000)])
    words = ["--steps", "--json", str(path), "--record", str(new), "--check", str(old)]
    assert instructions.main([*words, *(["--loops", "2"] if MCA else [])]) == 6
    printed, complaint = capsys.readouterr()
    assert "more than the recorded 100,000, expected at most 2% more" in complaint
    figures = json.loads(path.read_text())["figures"]
    (figure,) = figures["engines"]
    assert f"{figure['instructions']:,}" in printed
    assert [each.instructions for each in records.read(new)] == [figure["instructions"]]
    for row in figures["kernels"]:
        assert f"{row['instructions']:,}" in printed
    assert len(figures["code"]) == (2 if MCA else 0)
    for piece in figures["code"]:
        assert all(cycles > 0 for cycles in piece["predicted_cycles"].values())


def test_records_take_the_place_of_older_ones(tmp_path):
    path = tmp_path / "records.json"
    old, new, other = Figure("a", "b", "c", 1), Figure("a", "b", "c", 2), Figure("a", "b", "d", 3)
    records.record(path, [old, other])
    records.record(path, [new])
    assert records.read(path) == [new, other]


@pytest.mark.parametrize(("count", "sentences"), [(102, 0), (103, 1), (1, 0)])
def test_two_per_cent_are_allowed(count, sentences):
    figure, recorded = (Figure("a", "b", "c", number) for number in (count, 100))
    assert len(records.excess([figure], [recorded])) == sentences


def test_a_figure_without_a_record():
    (sentence,) = records.excess([Figure("a", "b", "c", 1)], [])
    assert sentence == "a by b on c: no figure is recorded. Record it with --record."


def test_neighbours_that_ran_equally_often_are_one_piece():
    blocks = [Block(0x100, 4, 5), Block(0x110, 2, 5), Block(0x118, 8, 1), Block(0x200, 1, 5)]
    assert loops.pieces(blocks) == [Block(0x100, 6, 5), Block(0x118, 8, 1), Block(0x200, 1, 5)]


def test_blocks_that_overlap_are_added():
    blocks = [Block(0x100, 3, 1), Block(0x104, 2, 9)]
    assert loops.pieces(blocks) == [Block(0x104, 2, 10), Block(0x100, 1, 1)]


def test_products_of_a_loop():
    lines = ("cnt v1.16b, v2.16b", "cnt v1.8b, v2.8b", "fmla v0.4s, v1.4s, v2.4s", "b.ne start")
    loop = loops.Loop(0x100, lines, 10)
    assert (loop.products, loop.rate, loop.instructions) == (192, 48.0, 40)
    assert loop.mix["cnt"] == 2


@pytest.mark.skipif(not MCA, reason="llvm-mca is missing")
def test_predictions_grow_with_the_code():
    one, two = (loops.predicted_cycles(["cnt v1.16b, v1.16b"] * n, "cortex-a72") for n in (8, 16))
    assert 0 < one < two
    assert loops.predicted_cycles(["b.ne start", "cbz x0, start"], "cortex-a53") > 0
    dot = ["udot v0.4s, v1.16b, v2.16b"]
    assert loops.predicted_cycles(dot, "cortex-a72") is None
    assert loops.predicted_cycles(dot, "neoverse-n1") > 0
    with pytest.raises(ToolchainError, match="llvm-mca fails for cortex-a72"):
        loops.predicted_cycles(["no such thing"], "cortex-a72")


def test_a_row_of_the_table():
    row = steps.Row("dense", "dense_bytes3", "198 x 384 x 1536", 12, 600, 12_000)
    cells = [next(iter(column.cells)) for column in table.kernels([row], [], 1200).columns]
    assert cells == ["dense_bytes3", "198 x 384 x 1536", "12", "600", "50.0%", "50", "20.00"]


def test_without_an_emulator(monkeypatch):
    monkeypatch.setattr(plugin.shutil, "which", lambda _: None)
    with pytest.raises(ToolchainError, match="qemu-aarch64 is not installed, which counts"):
        plugin.emulator()


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ("usage: qemu-aarch64 -cpu model", "was built without plugins"),
        ("-plugin version 9.2.0", "is QEMU 9, whose plugins have another interface"),
    ],
)
def test_an_emulator_that_does_not_take_the_plugin(says, sentence, tmp_path, monkeypatch):
    qemu = tmp_path / "qemu-aarch64"
    qemu.write_text(f"#!/bin/sh\necho {says}\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ToolchainError, match=sentence):
        plugin.emulator()


def test_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin.shutil, "which", lambda _: None)
    with pytest.raises(ToolchainError, match="no C compiler is installed"):
        plugin.built(tmp_path)
    monkeypatch.setattr(onnx_runtime, "_COMPILER", "no-such-gcc")
    with pytest.raises(ToolchainError, match="no-such-gcc is not installed"):
        onnx_runtime.counted(DEMO, "cortex-a72", tmp_path, tmp_path)


def test_a_library_of_onnx_runtime(tmp_path):
    path = tmp_path / "onnxruntime-9.9-cp311-manylinux_2_28_aarch64.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("onnxruntime/capi/libonnxruntime.so.9.9", "code")
    found = onnx_runtime.library(path, tmp_path)
    assert found.read_text() == "code"
    assert onnx_runtime.library(found, tmp_path) == found
    other = path.rename(tmp_path / "onnxruntime-9.9-manylinux_2_28_x86_64.whl")
    with pytest.raises(UsageError, match="expected a wheel of onnxruntime for aarch64"):
        onnx_runtime.library(other, tmp_path)
    with pytest.raises(UsageError, match="there is no such file"):
        onnx_runtime.library(tmp_path / "absent.so", tmp_path)
    with pytest.raises(GsbError, match=r"absent\.whl: cannot be read"):
        onnx_runtime.library(tmp_path / "absent.whl", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "llvm -mcpu=haswell"], "instructions are counted on 64-bit Arm"),
        (["--target", "llvm -mcpu=cortex-a7"], "cortex-a7"),
        (["--model", "absent.onnx"], "there is no such file"),
        (["--model", str(DEMO), "--preset", "mini"], "--preset excludes --model and --float"),
        (["--check", "absent.json"], "cannot be read"),
        (["--check", str(DEMO)], "holds no recorded figures"),
        (["--record", "absent/records.json"], "its folder cannot be written to"),
        (["--loops", "0"], "is not a list of numbers of at least 1"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, sentence, capsys):
    assert instructions.main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert sentence in printed
