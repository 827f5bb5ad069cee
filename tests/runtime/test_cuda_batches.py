"""Programs of one artefact on a GPU: none spoils what another must find as it left it."""

import numpy as np
import pytest

from gsb_tvm.driver import compile_model
from gsb_tvm.options import Options
from gsb_tvm.runtime.cuda import session
from gsb_tvm.runtime.cuda.launching import Room
from gsb_tvm.runtime.metadata import Memory, Program
from gsb_tvm.targets import resolve
from tests import tiny_models as tiny
from tests.runtime.emulated_gpu import EmulatedGpu

BATCHES = (1, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A binary linear layer for sm_90 and several batches."""
    made = tmp_path_factory.mktemp("cuda")
    model = tiny.binary_linear(
        shape=("n", tiny.TOKENS, tiny.FEATURES), out_shape=("n", tiny.TOKENS, tiny.COLUMNS)
    )
    options = Options(made / "model.so", batch=BATCHES, verify=False, dump_ir=made / "ir")
    compile_model(model, resolve("cuda -arch=sm_90"), options)
    return made


@pytest.fixture
def gpu(folder):
    return EmulatedGpu(*((folder / f"ir/batch-{n}/model.cu").read_text() for n in BATCHES))


def test_a_batch_of_another_size_between_calls_changes_nothing(folder, gpu):
    module = session.load_cuda(folder / "model.so", gpu)
    x = np.random.default_rng(0).standard_normal((4, tiny.TOKENS, tiny.FEATURES), np.float32)
    wanted = [module(each[None]) for each in x]
    np.testing.assert_array_equal(module(x), np.concatenate(wanted))
    for each, y in zip(x, wanted, strict=True):
        np.testing.assert_array_equal(module(each[None]), y)


def test_each_program_has_memory_of_its_own():
    """Where it leaves zeros depends on its batch: another's tensors would lie there."""
    gpu = EmulatedGpu()
    room = Room(gpu)
    one, four = (
        Program(entry=f"gsb_b{n}", batch=n, inputs=(), outputs=(), memory=Memory(100 * n))
        for n in BATCHES
    )
    places = [room.memory_of(program) for program in (one, four, one)]
    assert places[0] == places[2] != places[1]
    assert [gpu.memory[place].read().nbytes for place in places] == [100, 400, 100]
