"""An int8 weight, its scale, its product and its bias become one function."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op
from tvm_ffi import structural_equal

from gsb_tvm.passes.fuse_lattices import FuseLattices
from gsb_tvm.passes.rewriting import literal
from gsb_tvm.testing import module_of, run_module
from tests.passes.graphs import const, quarters

LEVELS = np.random.default_rng(0).integers(-128, 128, (33, 16)).astype(np.int8)


def weight(e, levels=LEVELS):
    return e(op.multiply(e(op.astype(literal(levels), "float32")), const(2.0**-7)))


def matmul(e, x):
    return e(op.matmul(x, weight(e)))


def biased(e, x):
    return e(op.add(matmul(e, x), const(quarters(16))))


def convolution(e, x):
    filters = weight(e, LEVELS[:32].reshape(8, 4, 4, 4))
    image = e(op.reshape(e(op.strided_slice(x, [2], [0], [32])), (1, 4, 4, 12)))
    return e(op.nn.conv2d(image, filters, strides=4))


def primitives(module):
    functions = [func for _, func in module.functions_items() if isinstance(func, relax.Function)]
    return [func for func in functions if func.attrs and "Primitive" in func.attrs]


@pytest.mark.parametrize("build", [matmul, biased, convolution])
def test_the_product_reads_int8_itself(build):
    before = module_of({"x": (2, 3, 33) if build is not convolution else (2, 3, 32)}, build)
    text = before.script()
    after = FuseLattices()(before)
    assert before.script() == text
    relax.analysis.well_formed(after)
    (fused,) = primitives(after)
    assert "int8" in {str(param.ty.dtype) for param in fused.params}
    x = quarters(*(int(n) for n in before["main"].params[0].ty.shape))
    np.testing.assert_array_equal(run_module(after, x)[0], run_module(before, x)[0])


def test_float_weights_stay():
    def build(e, x):
        return e(op.matmul(x, const(quarters(33, 16))))

    module = module_of({"x": (2, 3, 33)}, build)
    assert structural_equal(FuseLattices()(module), module)
