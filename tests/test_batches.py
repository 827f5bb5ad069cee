"""Several batches in one artefact: programs that share constants, calls cut into them."""

import io
import json

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

import gsb_tvm
from gsb_tvm.dialect.errors import ModelError, UsageError
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.models.export import export
from gsb_tvm.models.fill import realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb
from gsb_tvm.runtime.emulate import skip_reason
from gsb_tvm.runtime.metadata import WEIGHTS, read
from gsb_tvm.runtime.toolchains import find
from gsb_tvm.runtime.workers import check_threads
from gsb_tvm.targets import resolve
from tests import tiny_models as tiny
from tests.commandline import NATIVE, refused

HOST = resolve("native")
BATCHES = (1, 2, 4)


def linear():
    """One packed operator; the batch is open."""
    return tiny.binary_linear(
        shape=("n", tiny.TOKENS, tiny.FEATURES), out_shape=("n", tiny.TOKENS, tiny.COLUMNS)
    )


def weights_bytes(path):
    """Size of an artefact's constants."""
    elf = ELFFile(io.BytesIO(path.read_bytes()))
    (symbol,) = elf.get_section_by_name(".dynsym").get_symbol_by_name(WEIGHTS)
    return symbol["st_size"]


def images(count, seed=0):
    shape = (count, tiny.TOKENS, tiny.FEATURES)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("batches")
    tiny.save(found, linear())
    tiny.save(found, tiny.binary_linear(), "fixed.onnx")
    return found


@pytest.fixture(scope="module")
def compiled(folder):
    return compile_model(folder / "m.onnx", HOST, Options(folder / "m.so", batch=(4, 1, 2)))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A GSB network for three batches, verified."""
    folder = tmp_path_factory.mktemp("network")
    export(realistic_(Gsb(PRESETS["mini"]), 0), folder / "mini.onnx", dynamic_batch=True)
    return compile_model(folder / "mini.onnx", HOST, Options(folder / "m.so", batch=BATCHES))


def test_there_is_a_program_for_each_batch(compiled):
    programs = read(compiled.artefact).programs
    assert compiled.batches == BATCHES
    names = [(1, "gsb_b1"), (2, "gsb_b2"), (4, "gsb_b4")]
    assert [(each.batch, each.entry) for each in programs] == names
    assert [each.inputs[0].shape[0] for each in programs] == list(BATCHES)
    assert all(each.steps and each.memory.fixed_bytes for each in programs)


def test_each_is_verified(compiled, network):
    for result in (compiled, network):
        found = [(each.batch, each.result.verdict) for each in result.checks]
        assert found == [(batch, "ok") for batch in BATCHES]


@pytest.mark.parametrize("count", range(1, 10))
def test_any_batch_gives_what_single_images_give(compiled, count):
    module, x = gsb_tvm.load(compiled.artefact), images(count, seed=count)
    expected = np.concatenate([module(image[None]) for image in x])
    np.testing.assert_array_equal(module(x), expected)


def test_the_same_on_two_threads(compiled):
    try:
        check_threads(2)
    except UsageError as err:
        pytest.skip(str(err))
    x = images(7)
    one, two = (gsb_tvm.load(compiled.artefact, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(two(x), one(x))


def test_an_artefact_for_one_batch_is_called_again_and_again(folder):
    module, x = gsb_tvm.build(folder / "m.onnx", batch=2), images(6)
    expected = np.concatenate([module(x[at : at + 2]) for at in (0, 2, 4)])
    np.testing.assert_array_equal(module(x), expected)
    with pytest.raises(UsageError, match="a batch of 3 cannot be cut into batches of 2"):
        module(x[:3])


def test_a_gsb_network_sees_each_part_as_a_batch_of_its_own(network):
    module = gsb_tvm.load(network.artefact)
    shape = (7, *module.metadata.program.inputs[0].shape[1:])
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    expected = np.concatenate([module(x[:4]), module(x[4:6]), module(x[6:])])
    np.testing.assert_array_equal(module(x), expected)
    # Its thresholds are shares of the largest value of the batch.
    assert not np.array_equal(module(x[:1]), module(x)[:1])
    assert any("each other" in note for note in network.notes)


def test_weights_are_in_the_file_once(network, tmp_path):
    model, single = network.artefact.with_name("mini.onnx"), tmp_path / "single.so"
    compile_model(model, HOST, Options(single, batch=1, verify=False))
    assert weights_bytes(network.artefact) == weights_bytes(single) > 50_000


def test_sizes_that_no_program_takes(compiled):
    module = gsb_tvm.load(compiled.artefact)
    with pytest.raises(UsageError, match=r'"x" has shape \(3, 5, 41\), expected \(3, 5, 40\)'):
        module(np.zeros((3, 5, 41), np.float32))
    with pytest.raises(UsageError, match="a batch of 0 cannot be cut"):
        module(images(0))


def test_steps_are_those_of_one_program(compiled):
    module = gsb_tvm.load(compiled.artefact)
    for program in module.metadata.programs:
        assert len(module.step_ticks([images(program.batch)])) == len(program.steps) + 1
    with pytest.raises(UsageError, match=r"a batch of 5 is 4 \+ 1, .* a batch of 1, 2, 4\."):
        module.step_ticks([images(5)])


def test_a_fixed_batch_is_refused(folder):
    with pytest.raises(ModelError) as caught:
        compile_model(folder / "fixed.onnx", HOST, Options(folder / "no.so", batch=BATCHES))
    assert str(caught.value) == (
        "fixed.onnx: several batches need a model in which the first axis of every input and "
        'output is an open batch, and no other axis is. Here "x" is (1, 5, 40), "y" is (1, 5, 24). '
        "Export it with a dynamic batch, or compile it for one."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": (1, 0)}, "the batch is 0, expected at least 1."),
        ({"batch": ()}, "the batch is missing, expected at least 1."),
        (
            {"batch": BATCHES, "stop_after": "Import"},
            "--stop-after shows one module. Choose one batch of 1, 2, 4.",
        ),
        (
            {"batch": BATCHES, "c_library": "m"},
            "a C library is for one batch, found 1, 2, 4. Write one for each with --batch and "
            "--name: several fit into one program.",
        ),
    ],
)
def test_options_that_do_not_go_together(folder, options, message):
    with pytest.raises(UsageError) as caught:
        compile_model(folder / "m.onnx", HOST, Options(folder / "no.so", **options))
    assert str(caught.value) == message


def test_the_command_line(gsb, folder, tmp_path):
    (tmp_path / "m.onnx").write_bytes((folder / "m.onnx").read_bytes())
    done = gsb(tmp_path, "compile", "m.onnx", *NATIVE, "-o", "m.so", "--batch", "1,4")
    assert done.code == 0, done
    assert "import (batch 4)" in done.out
    assert "verify (here, batch 4)" in done.out
    shown = gsb(tmp_path, "inspect", "m.so").out
    assert "batch 1, " in shown
    assert "batch 4, " in shown
    found = json.loads(gsb(tmp_path, "verify", "m.so", "m.onnx", "--json").out)
    assert found["verdict"] == "ok"
    assert [check["batch"] for check in found["checks"]] == [1, 4]
    refused(gsb(tmp_path, "verify", "m.so", "m.onnx", "--batch", 2), 2, "only for 1, 4")
    np.save(tmp_path / "x.npy", images(6))
    assert gsb(tmp_path, "run", "m.so", "--input", "x.npy", "-o", "y.npz").code == 0
    assert np.load(tmp_path / "y.npz")["y"].shape == (6, tiny.TOKENS, tiny.COLUMNS)


def test_bench_names_the_batches(gsb, compiled, folder):
    timed = ("bench", "m.so", "--runs", 3, "--json")
    found = json.loads(gsb(folder, *timed, "--batch", 5).out)
    assert (found["images"], found["batches"]) == (5, [4, 1])
    assert json.loads(gsb(folder, *timed).out)["batches"] == [1]
    profiled = gsb(folder, *timed, "--batch", 2, "--profile", "--no-limit")
    assert json.loads(profiled.out)["profile"]["steps"]
    refused(gsb(folder, *timed, "--batch", 5, "--profile"), 2, "4 + 1")
    assert "5 a run (4 + 1)" in gsb(folder, "bench", "m.so", "--runs", 1, "--batch", 5).out


@pytest.mark.parametrize("text", ["1,", "2,x", "0,1", "-1", "1;2", ""])
def test_what_is_no_list_of_batches(gsb, folder, text):
    done = gsb(folder, "compile", "m.onnx", *NATIVE, f"--batch={text}")
    refused(done, 2, "argument --batch", f'"{text}"')


def test_each_batch_is_dumped(folder, tmp_path):
    options = Options(tmp_path / "m.so", (1, 2), verify=False, dump_ir=tmp_path / "ir")
    compile_model(folder / "m.onnx", HOST, options)
    for batch in (1, 2):
        assert (tmp_path / "ir" / f"batch-{batch}" / "model.s").exists()


def test_each_program_for_another_cpu_is_verified(folder, tmp_path):
    a72 = resolve("llvm -mcpu=cortex-a72")
    if not find(a72):
        pytest.skip("no cross linker")
    result = compile_model(folder / "m.onnx", a72, Options(tmp_path / "m.so", batch=(1, 3)))
    found = {(each.batch, each.where): each.result.verdict for each in result.checks}
    assert list(found) == [(b, where) for b in (1, 3) for where in ("host build", "emulated")]
    assert found[1, "host build"] == found[3, "host build"] == "ok"
    emulated = {found[1, "emulated"], found[3, "emulated"]}
    assert emulated == ({"skipped"} if skip_reason(a72) else {"ok"})


def test_equal_models_give_equal_bytes(compiled, folder):
    again = compile_model(folder / "m.onnx", HOST, Options(folder / "again.so", batch=BATCHES))
    assert again.artefact.read_bytes() == compiled.artefact.read_bytes()
