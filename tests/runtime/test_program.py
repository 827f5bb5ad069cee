import numpy as np
import pytest
from tvm import relax

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.runtime.build import Code, plan
from gsb_tvm.runtime.constants import Constants
from gsb_tvm.runtime.elf import ALIGNMENT
from gsb_tvm.runtime.program import Buffer, program


def test_steps_in_the_order_of_the_model(popcount_code: Code) -> None:
    program = popcount_code.program
    assert [step.kernel for step in program.steps] == ["popmm", "matmul", "softmax"]
    first, last = program.steps[0], program.steps[-1]
    assert first.args[0] == Buffer("input", 0, (16, 8), "uint32")
    assert first.args[1].place == "constant"
    assert last.args[-1] == program.outputs[0]
    assert program.outputs[0].shape == (16, 10)
    assert last.layer == "z"


def test_places_are_aligned_and_inside(popcount_code: Code) -> None:
    program = popcount_code.program
    sizes = {"arena": program.arena_bytes, "constant": len(popcount_code.constants)}
    for buffer in {arg for step in program.steps for arg in step.args}:
        if buffer.place != "input":
            assert buffer.at % ALIGNMENT == 0
            assert buffer.at + buffer.size_bytes <= sizes[buffer.place]


def test_constants_stand_where_the_steps_look(popcount_code: Code, popcount) -> None:
    program = popcount_code.program
    place = program.steps[1].args[1]
    found = np.frombuffer(popcount_code.constants.data(), np.float32, 320, place.at).reshape(32, 10)
    (w,) = (c for c in values(popcount.module["main"]) if c.dtype == np.float32)
    np.testing.assert_array_equal(found, w)


def values(function) -> list[np.ndarray]:
    found = []

    def visit(node) -> None:
        if type(node).__name__ == "GenericConst":
            found.append(node.value.numpy())

    relax.analysis.post_order_visit(function, visit)
    return found


def test_one_constant_used_twice_is_stored_once(native) -> None:
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    c = relax.const(np.ones(4, np.float32))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.multiply(relax.op.add(x, c), c))
            y = builder.emit_output(y)
        builder.emit_func_output(y)
    constants = Constants()
    program(plan(builder.get(), native), constants)
    assert len(constants) == 16


def test_views_share_their_place(views, native) -> None:
    found = program(plan(views.module, native), Constants())
    doubled = found.steps[0].args[-1]
    reshaped = next(a for step in found.steps[1:] for a in step.args if a.shape == (256,))
    assert (reshaped.place, reshaped.at) == (doubled.place, doubled.at)
    assert found.outputs[2] == found.inputs[1]


def test_what_is_no_kernel_is_named(native) -> None:
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        call = relax.call_pure_packed("vm.builtin.copy", x, ty_args=[x.ty])
        builder.emit_func_output(builder.emit(call))
    with pytest.raises(
        ModelError, match=r"the lowered model holds .*copy.*expected calls of kernels"
    ):
        program(plan(builder.get(), native), Constants())
