"""Levels of steps, and places of tensors for that order."""

from hypothesis import given
from hypothesis import strategies as st

from gsb_tvm.runtime.cuda.levels import arranged
from gsb_tvm.runtime.program import Buffer, Program, Step, aligned

INPUT = Buffer("input", 0, (4,), "float32")
WEIGHT = Buffer("constant", 0, (4,), "float32")


def chain(sizes, reads):
    """A program whose step ``i`` reads the results of ``reads[i]``; the last result goes out."""
    tensors, steps, at = [], [], 0
    for i, size in enumerate(sizes):
        tensors.append(Buffer("arena", at, (size,), "float32"))
        at += aligned(4 * size)
        read = [tensors[j] for j in reads[i]]
        steps.append(Step(f"k{i}", (INPUT, WEIGHT, *read, tensors[i]), f"s{i}"))
    return Program((INPUT,), (tensors[-1],), tuple(steps), at)


def names(order):
    return [[step.kernel for step in level] for level in order.levels]


def test_what_needs_the_same_is_of_one_level():
    calls = chain([8] * 6, [[], [0], [0], [1], [2, 3], [4]])
    assert names(arranged(calls)) == [["k0"], ["k1", "k2"], ["k3"], ["k4"], ["k5"]]


def test_a_late_step_that_needs_nothing_comes_first():
    calls = chain([8] * 3, [[], [0], []])
    assert names(arranged(calls)) == [["k0", "k2"], ["k1"]]


def test_a_tensor_without_elements_ties_nothing():
    calls = chain([8, 0, 8], [[], [], []])  # the place of the second is that of the third
    assert calls.steps[1].args[-1].at == calls.steps[2].args[-1].at
    assert names(arranged(calls)) == [["k0", "k1", "k2"]]


def test_a_place_is_taken_again_when_nobody_needs_what_is_there():
    calls = chain([64] * 6, [[], [0], [1], [2], [3], [4]])
    found = arranged(calls).program
    assert found.arena_bytes == 2 * aligned(256)
    assert [step.layer for step in found.steps] == [f"s{i}" for i in range(6)]


def test_results_of_one_level_never_lie_where_another_of_it_reads():
    # The second reads last what the first one's result would fit over.
    calls = chain([64, 64, 64, 64], [[], [0], [0], [1, 2]])
    order = arranged(calls)
    found = order.program
    assert found.steps[1].args[-1].at != found.steps[2].args[-1].at != found.steps[0].args[-1].at


@st.composite
def programs(draw):
    count = draw(st.integers(1, 12))
    sizes = [draw(st.integers(0, 40)) for _ in range(count)]
    reads = [
        draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else []
        for i in range(count)
    ]
    return chain(sizes, reads)


@given(programs())
def test_every_step_finds_what_was_written_for_it(calls):
    """Runs the steps on bytes: each writes its number, in the worst order of its level."""
    order = arranged(calls)
    found = order.program
    assert found.arena_bytes <= calls.arena_bytes
    number = {step.kernel: i for i, step in enumerate(calls.steps)}
    memory = [None] * found.arena_bytes
    for running in order.levels:
        for step in running:
            _write(memory, step.args[-1], number[step.kernel])
        for step in running:
            old = calls.steps[number[step.kernel]]
            for buffer, before in zip(step.args[2:-1], old.args[2:-1], strict=True):
                writer = next(i for i, s in enumerate(calls.steps) if s.args[-1] is before)
                assert set(_bytes(memory, buffer)) <= {writer}
    assert set(_bytes(memory, found.outputs[0])) <= {len(calls.steps) - 1}


def _bytes(memory, buffer):
    return memory[buffer.at : buffer.at + buffer.size_bytes]


def _write(memory, buffer, number):
    memory[buffer.at : buffer.at + buffer.size_bytes] = [number] * buffer.size_bytes
