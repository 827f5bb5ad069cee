"""The emulator notices what kernels must not do, and what a GPU might let pass."""

import numpy as np
import pytest

from tests.schedules.cuda.emulator import WAYS, Emulated, Memory, Way

THREADS = 64
SOURCE = """
#define KERNEL extern "C" __global__ void
KERNEL turns_with_barrier(int* x, int* y) {
  __shared__ int kept[64];
  kept[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = kept[63 - threadIdx.x];
}
KERNEL turns_without(int* x, int* y) {
  __shared__ int kept[64];
  kept[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = kept[63 - threadIdx.x];
}
KERNEL copies(int* x, int* y) {
  __shared__ alignas(16) int kept[256];
  gsb_copy(kept + 4 * threadIdx.x, x);
  gsb_commit();
  y[threadIdx.x] = kept[4 * threadIdx.x];
}
KERNEL copies_askew(int* x, int* y) { gsb_copy(x, x + 1); }
KERNEL reads_behind(int* x, int* y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
KERNEL reads_before(int* x, int* y) { y[threadIdx.x] = x[(int)threadIdx.x - 3]; }
KERNEL writes_behind(int* x, int* y) { y[threadIdx.x + 1] = 0; }
KERNEL is_alone(int* x, int* y) { if (threadIdx.x == 5) __syncthreads(); }
KERNEL is_elsewhere(int* x, int* y) {
  y[0] = threadIdx.x % 2 ? gsb_ballot(true) : gsb_exchange(1, 1);
}
KERNEL says(int* x, int* y) {
  const bool some = gsb_any_of_block(threadIdx.x == 40);
  __syncthreads();
  const bool none = gsb_any_of_block(false);
  y[threadIdx.x] = 2 * some + none;
}
"""


@pytest.fixture(scope="module")
def emulated():
    return Emulated(SOURCE)


def launched(emulated, function, way=WAYS[0], count=THREADS):
    """What becomes of ``y``, zeros, while ``x`` counts."""
    x, y = (Memory(a, way.at_start) for a in (np.arange(count, dtype="i4"), np.zeros(count, "i4")))
    emulated.launch(function, (2, 1, 1), (THREADS, 1, 1), [x.pointer, y.pointer], way)
    return y.read()


def test_threads_see_what_others_wrote_before_a_barrier(emulated):
    for way in WAYS:
        assert (launched(emulated, "turns_with_barrier", way) == np.arange(THREADS)[::-1]).all()
        assert (launched(emulated, "turns_without", way) != np.arange(THREADS)[::-1]).any()


def test_copies_happen_when_they_are_waited_for(emulated):
    assert (launched(emulated, "copies", Way(lazy=False)) == 0).all()
    assert (launched(emulated, "copies", Way(lazy=True)) != 0).all()


def test_what_a_block_said_is_forgotten(emulated):
    for way in WAYS:
        assert (launched(emulated, "says", way) == 2).all()


@pytest.mark.parametrize(
    ("function", "way", "why"),
    [
        ("reads_behind", Way(), "nobody's, 0 bytes behind a tensor of 256$"),
        ("writes_behind", Way(), "nobody's, 0 bytes behind a tensor of 256$"),
        ("reads_before", Way(at_start=True), "nobody's, 12 bytes before a tensor of 256$"),
        ("copies_askew", Way(), "a copy of 16 bytes that are not aligned$"),
        ("is_alone", Way(), "threads wait at __syncthreads for others that do not come$"),
        ("is_elsewhere", Way(), "threads that should meet are at gsb_\\w+ and at gsb_\\w+$"),
    ],
)
def test_what_is_wrong_ends_the_launch_and_no_more(emulated, function, way, why):
    place = r"thread \(\d+, 0, 0\) of block \([01], 0, 0\)"
    with pytest.raises(AssertionError, match=f"^{function}: {place}: .*{why}"):
        launched(emulated, function, way)
    assert (launched(emulated, "turns_with_barrier") == np.arange(THREADS)[::-1]).all()


def test_a_tensor_between_words_is_refused(emulated):
    x, y = Memory(np.zeros(THREADS + 1, "i4")), Memory(np.zeros(THREADS, "i4"))
    with pytest.raises(AssertionError, match="says: pointer 0 is at no multiple of 16 bytes"):
        emulated.launch("says", (1, 1, 1), (THREADS, 1, 1), [x.pointer + 4, y.pointer])


def test_what_is_written_short_of_a_page_is_seen(emulated):
    x, y = Memory(np.arange(THREADS + 1, dtype="i4")), Memory(np.zeros(THREADS, "i4"), True)
    emulated.launch("writes_behind", (1, 1, 1), (THREADS, 1, 1), [x.pointer, y.pointer])
    with pytest.raises(AssertionError, match="written behind a tensor"):
        y.read()
