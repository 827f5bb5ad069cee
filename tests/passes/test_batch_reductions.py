"""Which models join the images of a batch."""

import pytest
from tvm import relax

from gsb_tvm.passes.batch_reductions import reduces_batch


def module(step):
    """``step`` of an input (4, 3, 5)."""
    x = relax.Var("x", relax.TensorType((4, 3, 5), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(step(x))
        builder.emit_func_output(y)
    return builder.get()


@pytest.mark.parametrize("axis", [None, 0, [1, 0]])
@pytest.mark.parametrize("name", ["max", "min", "mean", "sum"])
def test_reductions_over_the_batch(name, axis):
    assert reduces_batch(module(lambda x: getattr(relax.op, name)(x, axis)))


@pytest.mark.parametrize(
    "step",
    [
        lambda x: relax.op.max(x, [1, 2]),
        lambda x: relax.op.mean(x, 2, keepdims=True),
        lambda x: relax.op.nn.softmax(x, 2),
        lambda x: relax.op.add(x, x),
    ],
)
def test_everything_else(step):
    assert not reduces_batch(module(step))
