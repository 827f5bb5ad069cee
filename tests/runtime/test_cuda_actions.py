"""What a program does on a GPU: its launches, and copies around them."""

import numpy as np
import pytest

from gsb_tvm.runtime.cuda.actions import CopyIn, CopyOut, actions_of, size_of, touches_tensors
from gsb_tvm.runtime.metadata import Launch, Memory, Place, Program, Tensor

X, MEMORY, WEIGHTS = Place("input", 0), Place("memory", 64), Place("constant", 0)
READS = Launch("reads", (1, 1, 1), (32, 1, 1), (X, WEIGHTS, MEMORY), (0,))
GOES_ON = Launch("goes_on", (1, 1, 1), (32, 1, 1), (MEMORY, MEMORY), (1,))


def program(batch: int, image: tuple[int, ...] = (4,), outputs: int = 1) -> Program:
    return Program(
        entry="gsb",
        batch=batch,
        inputs=(Tensor("x", (max(batch, 1), *image), "float32"),),
        outputs=tuple(Tensor(f"y{n}", (max(batch, 1), n), "float32") for n in range(outputs)),
        memory=Memory(1000),
        launches=(READS, GOES_ON),
        results=(MEMORY,) * outputs,
    )


@pytest.mark.parametrize("made", [program(0), program(0, (3,)), program(1), program(3, (5, 12))])
def test_images_of_whole_words_are_read_where_they_are(made):
    found = actions_of(made)
    assert (found.actions, found.memory_bytes) == ((READS, GOES_ON), 1000)


@pytest.mark.parametrize(("batch", "features"), [(1, 3), (1, 5), (4, 3), (8, 2)])
def test_other_images_are_copied_behind_the_memory(batch, features):
    made = program(batch, (features,))
    found = actions_of(made)
    size = 4 * batch * features
    copy = Place("memory", 1024)
    launch = Launch(READS.function, READS.grid, READS.block, (copy, WEIGHTS, MEMORY), READS.steps)
    assert found.actions == (CopyIn(0, 1024, size), launch, GOES_ON)
    assert found.memory_bytes == 1024 + size == 1024 + size_of(made.inputs[0])


def test_outputs_that_hold_anything_are_copied_in_the_end():
    found = actions_of(program(2, (4,), outputs=3))
    assert found.actions == (READS, GOES_ON, CopyOut(1, MEMORY, 8), CopyOut(2, MEMORY, 16))


def test_which_touch_tensors():
    found = actions_of(program(1, (3,), outputs=2)).actions
    assert [*map(touches_tensors, found)] == [True, False, False, True]
    assert [*map(touches_tensors, (READS, GOES_ON))] == [True, False]


def test_sizes():
    assert size_of(Tensor("x", (2, 3), "int64")) == 48
    assert size_of(Tensor("x", (0, 3), "float32")) == 0
    assert size_of(Tensor("x", (), "float32")) == np.dtype("float32").itemsize
