"""Benchmarks for a GPU, as far as they are arithmetic: loops, shares, who is compared."""

import numpy as np
import onnx
import pytest

from benchmarks.gpu import hopper, limits, parts
from benchmarks.gpu.limits import LOOPS, Loop, Rate, share, work
from benchmarks.gpu.timing import compared, figures
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.errors import ArtefactError
from gsb_tvm.dialect.specs import Binarize, Compare, Dense, Kind, encode
from gsb_tvm.runtime.cuda.driver import LaunchNode
from gsb_tvm.runtime.metadata import Launch, Program, Step
from tests.schedules.cuda.sass import instructions_of


@pytest.fixture(scope="module")
def loops():
    return instructions_of(limits.compiled("sm_90"))


@pytest.mark.parametrize(
    ("function", "instruction"),
    [
        ("b1_mma", "BMMA"),
        ("int8_mma", "IMMA"),
        ("bf16_mma", "HMMA"),
        ("popcount", "POPC"),
        ("fused", "FFMA"),
    ],
)
def test_a_loop_is_made_of_its_instruction(loops, function, instruction):
    found = loops[function]
    assert found[instruction] >= 32, "the loop is not unrolled"
    assert found[instruction] % 8 == 0, "chains of a step"


@pytest.mark.parametrize("function", ["memory_read", "memory_copy", "cache_read"])
def test_a_block_has_several_loads_on_their_way(loops, function):
    assert loops[function]["LDG"] >= 8


@pytest.mark.parametrize(
    ("function", "instruction"), [("b1_wgmma", "BGMMA"), ("int8_wgmma", "IGMMA")]
)
def test_a_loop_of_hopper(function, instruction):
    found = instructions_of(hopper.compiled())[function]
    assert found[instruction] >= 32
    assert function in {loop.function for loop in hopper.LOOPS}


def test_every_loop_is_there(loops):
    wanted = {limits.NOTHING, limits.PAUSE, limits.OVERLAPPING, *(loop.function for loop in LOOPS)}
    assert loops.keys() == wanted


def test_work_of_a_launch():
    b1 = next(loop for loop in LOOPS if loop.function == "b1_mma")
    assert work(b1, 132, 8) == 132 * 8 * 8 * 4096 * (16 * 8 * 256)
    assert work(Loop("read", "B", 100, is_memory=True), 7, 8) == 700


def test_share():
    assert share(50.0, 2.0, 100.0) == 0.25


class Gpu:
    """Counts what it is told, and remembers no more."""

    def __init__(self):
        self.ran = []

    def allocate(self, size):
        return size

    def free(self, pointer):
        pass

    def load(self, image):
        return image

    def function(self, module, name):
        return name

    def run(self, node, _stream):
        self.ran.append(node.function)

    def synchronize(self, _stream):
        self.ran.append("waited")


def test_the_best_size_counts():
    measured = limits.Limits(Gpu(), b"", 132)
    seconds = {4: 4.0, 8: 4.0, 16: 8.0, 32: 2.0}

    def seconds_of(node: LaunchNode) -> float:
        return seconds[node.block[0] // 32]

    rate = measured.rate(LOOPS[0], seconds_of)
    assert (rate.warps, rate.blocks) == (32, 132)
    assert rate == Rate("MAC", work(LOOPS[0], 132, 32) / 2.0, 32, 132)


class Clock:
    """Says that a run takes what ``run`` returns, and a node a second more than the one before."""

    stream = 0

    def __init__(self):
        self.made = 0

    def mark(self):
        self.made += 1
        return self.made

    def between(self, marks):
        return [float(number) for number, _ in enumerate(marks[1:])]

    def calibrated(self, run, seconds):
        return 2

    def seconds(self, run, times):
        assert times == 2
        return run()


def test_no_more_warps_than_fit():
    measured = limits.Limits(Gpu(), b"", 132)
    seen = set()

    def seconds_of(node: LaunchNode) -> float:
        seen.add(node.block[0] // 32)
        return 1.0

    measured.rate(hopper.LOOPS[0], seconds_of)
    assert seen == {4, 8}


def test_runs_in_turn():
    order = []

    def run(name, seconds):
        order.append(name)
        return seconds.pop(0)

    a, b = [1.0, 2.0, 3.0], [5.0, 5.0, 5.0]
    runs = {"a": lambda: run("a", a), "b": lambda: run("b", b)}
    found = compared(Clock(), runs, rounds=3, seconds=0.0)
    assert order == ["a", "b"] * 3
    assert found["a"] == figures([1.0, 2.0, 3.0])
    assert (found["a"].low, found["a"].median, found["a"].high) == (1.5, 2.0, 2.5)
    assert found["b"].median == 5.0


def test_nodes_are_sent_while_the_stream_is_held_up():
    gpu = Gpu()
    nodes = [LaunchNode(name, (1, 1, 1), (1, 1, 1), ()) for name in ("a", "b")]
    pause = LaunchNode("pause", (1, 1, 1), (1, 1, 1), ())
    assert parts.node_seconds(gpu, Clock(), nodes, pause, 2) == [0.0, 1.0]
    assert gpu.ran == ["pause", "a", "b", "waited"] * 2


def program():
    dense = Dense(Rows(1, 4, 1, 64), Kind.SIGN, Kind.SIGN, 64, 64)
    binarize = Binarize(Rows(1, 4, 1, 64), Compare(Kind.SIGN), False, False)
    launch = ("f", (1, 1, 1), (1, 1, 1), ())
    return Program(
        inputs=(),
        outputs=(),
        kernels={"dense": encode(dense), "binarize1": encode(binarize)},
        steps=(Step("binarize1", "a"), *(Step("dense", layer) for layer in "bcdef")),
        launches=tuple(
            Launch(*launch, steps) for steps in ((0,), (0,), (1,), (2,), (3, 4, 0), (5,))
        ),
    )


def test_parts_of_a_program():
    seconds = [1.0, 2.0, 3.0, 4.0, 9.0, 5.0]
    dense, joint, binarize = parts.parts(program(), seconds, "model.so")
    assert (dense.kind, dense.launches, dense.seconds) == ("dense", 3, 12.0)
    assert dense.macs == 3 * 4 * 64 * 64
    assert (joint.kind, joint.launches, joint.seconds) == ("2 dense + binarize", 1, 9.0)
    assert joint.macs == 2 * 4 * 64 * 64
    assert joint.bytes == 2 * dense.bytes // 3 + binarize.bytes
    assert (binarize.kind, binarize.launches, binarize.seconds) == ("binarize", 2, 3.0)
    assert binarize.macs is None
    assert binarize.bytes == 4 * 4 * 64 + 4 * 2 * 16  # words of 16 tokens, padded


def test_an_artefact_that_does_not_list_its_steps():
    with pytest.raises(ArtefactError, match="does not say what its steps are"):
        parts.parts(Program(inputs=(), outputs=()), [], "model.so")


def test_the_opponent_is_the_float_network():
    torch = pytest.importorskip("torch")
    from benchmarks.gpu.opponents import OPPONENTS, vit
    from gsb_tvm.models.gsb import PRESETS, float_vit

    config = PRESETS["mini"]
    plain, fused = float_vit(config).eval(), vit(config)
    fused.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        # Sums of 97 terms in another order.
        torch.testing.assert_close(fused(images), plain(images), rtol=1e-4, atol=1e-5)
    assert len({opponent.name for opponent in OPPONENTS}) == len(OPPONENTS)


def test_onnxruntime_gets_the_float_network(tmp_path):
    torch, onnxruntime = pytest.importorskip("torch"), pytest.importorskip("onnxruntime")
    from benchmarks.gpu import onnxruntime_opponents as other
    from gsb_tvm.models.gsb import PRESETS

    model = other.exported(PRESETS["mini"], 2, torch.empty(0), tmp_path / "model.onnx")
    session = other.session_of(tmp_path / "model.onnx", [("CPUExecutionProvider", {})])
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (logits,) = session.run(None, {"image": images.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(logits, model(images).numpy(), rtol=1e-4, atol=1e-5)
    other.exported(PRESETS["mini"], 1, torch.empty(0).half(), tmp_path / "half.onnx")
    (image,) = onnx.load(tmp_path / "half.onnx").graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    for provider in other.PROVIDERS.values():
        if provider not in onnxruntime.get_available_providers():
            assert f"has no {provider}" in other.missing(provider)
            with pytest.raises(RuntimeError, match=f"not {provider}"):
                other.session_of(tmp_path / "model.onnx", [(provider, {})])
    assert other.missing("CPUExecutionProvider") == ""
