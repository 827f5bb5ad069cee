"""Views as index maps: positions move in NumPy as values do on the machine."""

import numpy as np
import pytest
from tvm import relax

from gsb_tvm.passes.rewriting import rewrite
from gsb_tvm.passes.views import view_index, view_source
from gsb_tvm.testing import module_of, run_module

SHAPE = (2, 4, 6)


def chain_of(module):
    """(source, calls, shape) of the result of ``main``, as a pass sees them."""
    seen = []

    def collect(var, value, graph):
        bound = graph.emit(value)
        seen.append(view_source(bound, graph))
        return bound

    rewrite(module["main"], collect)
    return seen[-1]


def _values_of_qkv(emit, x):
    by_head = emit(relax.op.reshape(x, (2, 4, 3, 2, 1)))
    parts = emit(relax.op.split(emit(relax.op.permute_dims(by_head, [2, 0, 3, 1, 4])), 3, axis=0))
    return emit(relax.op.squeeze(emit(relax.TupleGetItem(parts, 2)), [0]))


CHAINS = {
    "reshape": lambda e, x: e(relax.op.reshape(x, (8, 6))),
    "permute": lambda e, x: e(relax.op.permute_dims(x, [2, 0, 1])),
    "permute all": lambda e, x: e(relax.op.permute_dims(x)),
    "squeeze": lambda e, x: e(relax.op.squeeze(e(relax.op.expand_dims(x, [1, 3])), [1])),
    "slice": lambda e, x: e(relax.op.strided_slice(x, [1, 2], [1, 0], [3, 6], [1, 2])),
    "slice from the end": lambda e, x: e(relax.op.strided_slice(x, [2], [-3], [-1])),
    "split": lambda e, x: e(relax.TupleGetItem(e(relax.op.split(x, 3, axis=2)), 1)),
    "split at": lambda e, x: e(relax.TupleGetItem(e(relax.op.split(x, [1, 4], axis=2)), 2)),
    "heads of qkv": _values_of_qkv,
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_index_map_is_what_the_machine_does(name):
    module = module_of({"x": SHAPE}, CHAINS[name])
    source, calls = chain_of(module)
    x = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    (expected,) = run_module(module, x)
    assert tuple(int(n) for n in source.ty.shape) == SHAPE
    np.testing.assert_array_equal(view_index(source, calls), expected)


def test_a_chain_ends_at_the_first_operator_that_computes():
    def build(emit, x):
        y = emit(relax.op.exp(emit(relax.op.reshape(x, (8, 6)))))
        return emit(relax.op.permute_dims(emit(relax.op.reshape(y, SHAPE)), [0, 2, 1]))

    source, calls = chain_of(module_of({"x": SHAPE}, build))
    assert [call.op.name for call, _ in calls] == ["relax.reshape", "relax.permute_dims"]
    assert tuple(int(n) for n in source.ty.shape) == (8, 6)


def test_an_item_of_another_tuple_is_no_view():
    def build(emit, x):
        pair = emit(relax.Tuple([x, x]))
        return emit(relax.op.reshape(emit(relax.TupleGetItem(pair, 0)), (8, 6)))

    _, calls = chain_of(module_of({"x": SHAPE}, build))
    assert len(calls) == 1
