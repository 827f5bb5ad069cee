"""Names of values through fusion: of products, of results, in functions that groups share."""

import numpy as np
from tvm import relax
from tvm.ir import GlobalVar
from tvm.relax import op

from gsb_tvm.passes.fuse_lattices import FuseLattices
from gsb_tvm.passes.keep_names import KeepNames
from gsb_tvm.passes.rewriting import literal
from gsb_tvm.testing import module_of, run_module
from tests.passes.graphs import const, quarters

SHAPE = (3, 16)
LEVELS = np.random.default_rng(0).integers(-128, 128, (16, 16)).astype(np.int8)


def lowered(build):
    module = module_of({"x": SHAPE}, build)
    for each in (relax.transform.LegalizeOps(), relax.transform.AnnotateTIROpPattern()):
        module = each(module)
    return module


def groups(module):
    """Name and function of each call of a group in main."""
    return [
        (binding.var.name, binding.value.op.name_hint)
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call) and isinstance(binding.value.op, GlobalVar)
    ]


def fused(module, fusion):
    text = module.script()
    after = KeepNames(fusion)(module)
    assert module.script() == text
    relax.analysis.well_formed(after)
    x = quarters(*SHAPE)
    np.testing.assert_array_equal(run_module(after, x)[0], run_module(module, x)[0])
    return groups(after)


def two_heads(e, x):
    """Independent products that end in the other order than they begin."""
    first = e(op.matmul(x, const(quarters(16, 16))), "first")
    second = e(op.matmul(x, const(quarters(16, 16) + 1)), "second")
    second = e(op.add(second, const(quarters(16))), "second_bias")
    first = e(op.add(first, const(quarters(16) - 1)), "first_bias")
    return e(op.concat([first, second], 1), "both")


def test_equal_groups_share_a_function_and_not_a_name():
    found = fused(lowered(two_heads), relax.transform.FuseOps())
    assert {name for name, _ in found} == {"first", "second"}
    assert len({function for _, function in found}) == 1


def test_a_group_without_a_product_is_named_after_its_result():
    def build(e, x):
        return e(op.exp(e(op.tanh(x), "inner")), "result")

    assert [name for name, _ in fused(lowered(build), relax.transform.FuseOps())] == ["result"]


def test_calls_outside_a_group_keep_their_names():
    module = KeepNames(relax.transform.FuseOps())(
        lowered(lambda e, x: e(op.nn.softmax(e(op.matmul(x, const(quarters(16, 16))), "a")), "b"))
    )
    (block,) = module["main"].body.blocks
    assert groups(module) == []
    assert [binding.var.name for binding in block.bindings][:2] == ["a", "b"]


def test_the_same_operator_with_other_attributes_is_another_value():
    def build(e, x):
        square = e(op.strided_slice(x, [1], [0], [3]))
        products = []
        for name, axes in (("first", [1, 0]), ("second", [0, 1])):
            wide = e(op.astype(literal(LEVELS[:3, :3]), "float32"))
            weight = e(op.multiply(wide, const(0.5)))
            products.append(e(op.matmul(e(op.permute_dims(square, axes)), weight), name))
        return e(op.concat(products, 1), "both")

    module = module_of({"x": SHAPE}, build)
    assert [name for name, _ in fused(module, FuseLattices())] == ["first", "second"]


def test_the_name_of_the_pass_stays():
    assert KeepNames(FuseLattices()).info.name == "gsb.FuseLattices"
