"""Products of spelled planes, and what recognition must make of them."""

import numpy as np
from tvm.relax import op
from tvm_ffi import structural_equal

from gsb_tvm.dialect import ops
from gsb_tvm.passes.recognize_planes import RecognizePlanes
from gsb_tvm.passes.rewriting import literal
from gsb_tvm.testing import assert_rewrites, module_of, operators
from tests.passes.graphs import CLEAN, F, bindings

K = [2, 31, 32, 33, 63, 64, 65]
SPECIAL = np.array([0, -0.0, 1e-45, -1e-45, 1e-38, 0.3, -0.3, 3e38, -3e38, np.inf, -np.inf], F)


def weight(k, columns=7, scale=0.5):
    return np.random.default_rng(k).choice([-scale, scale], (k, columns)).astype(F)


def inputs(*shape, number=0):
    """Normal numbers with special values strewn in."""
    rng = np.random.default_rng(number)
    x = rng.standard_normal(shape).astype(F)
    return np.where(rng.random(shape) < 0.3, rng.choice(SPECIAL, shape), x)


def dense(spell, k=33, w=None, shape=None):
    """Module of ``spell(emit, x) @ w``."""
    w = weight(k) if w is None else w
    build = lambda emit, x: emit(op.matmul(spell(emit, x), literal(w)))  # noqa: E731
    return module_of({"x": shape or (2, 3, k)}, build)


def product(module):
    """The one ``gsb.matmul`` of a module."""
    (found,) = bindings(module, "gsb.matmul")
    return found


def planes(module):
    """Operator and attribute of each plane, as text."""
    calls = [b.value for block in module["main"].body.blocks for b in block.bindings]
    return [
        f"{call.op.name[4:]} {call.attrs['at_zero' if 'sign' in call.op.name else 'compare']}"
        for call in calls
        if ops.is_call(call, "gsb.sign") or ops.is_call(call, "gsb.mask")
    ]


def recognised(module, *arrays, tolerance=0.0):
    after = assert_rewrites(RecognizePlanes(), module, inputs=arrays, tolerance=tolerance)
    assert operators(after)["relax.matmul"] == 0, after.script()
    return after


def assert_stays(module):
    """Planes that no product reads are dead; but for these nothing may differ."""
    assert operators(module)["relax.matmul"] == 1, module.script()
    after = CLEAN(RecognizePlanes()(module))
    assert structural_equal(after, CLEAN(module), map_free_vars=True), after.script()
