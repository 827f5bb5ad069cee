import numpy as np
import pytest
from tvm import relax

from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.runtime import aot
from gsb_tvm.runtime.build import Code, plan


@pytest.fixture(scope="module")
def program(popcount_code: Code) -> aot.Program:
    return aot.program(popcount_code.planned)


def test_steps_in_the_order_of_the_model(program: aot.Program) -> None:
    assert [step.kernel for step in program.steps] == ["popmm", "matmul", "softmax"]
    first, last = program.steps[0], program.steps[-1]
    assert first.args[0] == aot.Buffer("input", 0, (16, 8), "uint32")
    assert first.args[1].place == "constant"
    assert last.args[-1] == program.outputs[0]
    assert program.outputs[0].shape == (16, 10)


def test_places_are_aligned_and_inside(program: aot.Program) -> None:
    sizes = {"arena": program.arena_bytes, "constant": len(program.constants)}
    for buffer in {arg for step in program.steps for arg in step.args}:
        if buffer.place != "input":
            assert buffer.at % aot.ALIGNMENT == 0
            assert buffer.at + aot.size_bytes(buffer) <= sizes[buffer.place]


def test_constants_stand_where_the_steps_look(program: aot.Program, popcount) -> None:
    place = program.steps[1].args[1]
    found = np.frombuffer(program.constants, np.float32, 320, place.at).reshape(32, 10)
    (w,) = (c for c in constants(popcount.module["main"]) if c.dtype == np.float32)
    np.testing.assert_array_equal(found, w)


def constants(function) -> list[np.ndarray]:
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
    assert len(aot.program(plan(builder.get(), native)).constants) == 16


def test_views_share_their_place(views, native) -> None:
    program = aot.program(plan(views.module, native))
    doubled = program.steps[0].args[-1]
    reshaped = next(a for step in program.steps[1:] for a in step.args if a.shape == (256,))
    assert (reshaped.place, reshaped.at) == (doubled.place, doubled.at)
    assert program.outputs[2] == program.inputs[1]


def test_what_needs_the_virtual_machine_is_named(native) -> None:
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        call = relax.call_pure_packed("vm.builtin.copy", x, ty_args=[x.ty])
        builder.emit_func_output(builder.emit(call))
    with pytest.raises(ToolchainError, match=r"the compiled model holds .*copy.*virtual machine"):
        aot.program(plan(builder.get(), native))


def test_the_header_states_the_contract(program: aot.Program) -> None:
    text = aot.header(program, "vit")
    assert f"#define VIT_ARENA_BYTES {program.arena_bytes}" in text
    assert "int vit_run(const void* const* inputs, void* const* outputs, void* arena);" in text
    assert "1 inputs, 1 outputs" in text
