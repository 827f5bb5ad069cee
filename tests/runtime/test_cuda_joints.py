"""Launches that become one, on the emulated GPU."""

import numpy as np
import pytest

from gsb_tvm.runtime.cuda.joints import Joint, grouped, with_joints
from gsb_tvm.runtime.cuda.launches import Argument, Launch
from gsb_tvm.runtime.cuda.nvrtc import compile_source
from gsb_tvm.targets.gpus import GPUS
from tests.schedules.cuda.emulator import WAYS, Emulated, Memory

GPU = GPUS["sm_90"]
HEAD = 'extern "C" __global__ void __launch_bounds__(64)'
SOURCE = f"""
{HEAD} twice(float* __restrict__ x_ptr, float* __restrict__ y_ptr);
{HEAD} place(int* __restrict__ y_ptr);
{HEAD} twice(float* __restrict__ x_ptr, float* __restrict__ y_ptr) {{
  __shared__ alignas(64) float turned[64];
  turned[63 - ((int)threadIdx.x)] = x_ptr[((int)blockIdx.x) * 64 + ((int)threadIdx.x)];
  __syncthreads();
  y_ptr[((int)blockIdx.x) * 64 + ((int)threadIdx.x)] = 2.0f * turned[((int)threadIdx.x)];
}}
{HEAD} place(int* __restrict__ y_ptr) {{
  if (((int)threadIdx.x) == 0) {{
    y_ptr[(((int)blockIdx.z) * 3 + ((int)blockIdx.y)) * 2 + ((int)blockIdx.x)] = 100 * ((int)blockIdx.z) + 10 * ((int)blockIdx.y) + ((int)blockIdx.x);
  }}
}}
"""  # noqa: E501


def launch(name="twice", grid=(4, 1, 1), threads=64, shared=256, pointers=2):
    return Launch(name, grid, (threads, 1, 1), (Argument("tensor", 0),) * pointers, shared)


def test_small_launches_of_as_many_threads_are_one():
    assert grouped([launch(), launch("place", shared=0), launch()], GPU) == [[0, 1, 2]]


@pytest.mark.parametrize(
    "other",
    [
        launch("place", threads=32),
        launch("place", grid=(132 * 1024 // 64 + 1, 1, 1)),  # fills the GPU
        launch("place", shared=48 << 10),  # more shared memory than a block has
        launch("place", pointers=511),  # more parameters than a launch has
    ],
    ids=["threads", "large", "shared", "parameters"],
)
def test_what_does_not_fit_stays_alone(other):
    assert grouped([launch(), other, launch()], GPU) == [[0, 2], [1]]


def test_equal_functions_share_their_shared_memory():
    each = launch(shared=40 << 10)
    assert grouped([each, each, each], GPU) == [[0, 1, 2]]


def test_nothing_is_changed_where_nothing_is_joined():
    assert with_joints(SOURCE, [], {"twice", "place"}) == SOURCE


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_block_does_its_part(way):
    joint = Joint((launch(), launch("place", grid=(2, 3, 4)), launch()))
    assert joint.blocks == 4 + 24 + 4
    library = Emulated(with_joints(SOURCE, [joint], {"place"}))
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal(256, dtype=np.float32) for _ in range(2))
    made = [Memory(np.zeros(256, np.float32)) for _ in range(2)]
    places = Memory(np.full(24, -1, np.int32))
    pointers = [Memory(first), made[0], places, Memory(second), made[1]]
    library.launch(
        joint.function, (joint.blocks, 1, 1), (64, 1, 1), [p.pointer for p in pointers], way
    )
    for memory, x in zip(made, (first, second), strict=True):
        np.testing.assert_array_equal(memory.read(), 2 * x.reshape(4, 64)[:, ::-1].reshape(-1))
    wanted = [100 * z + 10 * y + x for z in range(4) for y in range(3) for x in range(2)]
    np.testing.assert_array_equal(places.read(), wanted)
    alone = Memory(np.full(24, -1, np.int32))
    library.launch("place", (2, 3, 4), (64, 1, 1), [alone.pointer], way)
    np.testing.assert_array_equal(alone.read(), wanted)


def test_nvidias_compiler_takes_it_and_leaves_members_out_that_nobody_launches():
    joint = Joint((launch(), launch("place", grid=(2, 3, 4)), launch()))
    found = compile_source(with_joints(SOURCE, [joint], {"place"}), GPU.arch).resources
    assert set(found) == {"twice_and_place_and_twice", "place"}
    assert found[joint.function].shared_bytes == 256
