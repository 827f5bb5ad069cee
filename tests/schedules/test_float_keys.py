"""Keys of float kernels: of what is computed, not of how it is spelled; signatures."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import tvm
from tvm import te, topi
from tvm.relax import op as R

from gsb_tvm.schedules.float.keys import key, signature
from tests.schedules.float_functions import compiled, inputs, lowered, ones
from tests.schedules.levels import profile_of


def _dense(tokens: int) -> Any:
    (func,) = lowered(lambda x: R.add(R.matmul(x, ones(24, 9)), ones(9)), (1, tokens, 24))
    return func


def _renamed(func: Any) -> Any:
    """The same function with other names for its parameters, tensors and axes."""
    text = func.script()
    for old, new in [("x0", "image"), ("matmul", "total"), ("T_add", "sum"), ("v_i", "w_i")]:
        assert old in text
        text = text.replace(old, new)
    return tvm.script.from_source(text)


def test_a_key_names_shapes_and_dtypes() -> None:
    family, text = key(_dense(7)).split(" ", 1)
    assert family == "Float"
    assert text.startswith('{"hash":"')
    assert text[len('{"hash":"') :].partition('"')[0].isalnum()
    assert text.endswith(
        ',"inputs":["float32 1x7x24","float32 24x9","float32 9"],"outputs":["float32 1x7x9"]}'
    )


def test_names_and_attributes_do_not_count() -> None:
    func = _dense(7)
    assert key(func) == key(_dense(7))
    assert key(_renamed(func)) == key(func)
    marked = func.with_attrs({"op_pattern": 4, "global_symbol": "fused", "tirx.noalias": False})
    assert key(marked) == key(func)


def test_other_computations_have_other_keys() -> None:
    shapes = [(3, 8), (3, 8)]
    funcs = [_dense(7), _dense(8)]
    for graph in (
        R.add,
        R.subtract,
        R.maximum,
        lambda x, y: R.subtract(R.abs(y), x),
        lambda x, y: R.add(x, R.abs(y)),
        lambda x, y: R.add(x, R.exp(y)),
        lambda x, _y: R.sum(x, axis=[1]),
        lambda x, _y: R.max(x, axis=[1]),
        lambda x, _y: R.sum(x, axis=[0]),
        lambda x, y: R.add(R.clip(x, 0, 6), y),
        lambda x, y: R.add(R.clip(x, 0, 6.5), y),
    ):
        funcs += lowered(graph, *shapes)
    assert len({key(func) for func in funcs}) == len(funcs)


def test_dtypes_count() -> None:
    keys = set()
    for dtype in ("int8", "uint8"):
        x = te.placeholder((3, 8), dtype, name="x")
        keys.add(key(te.create_prim_func([x, topi.cast(x, "float32")])))
    assert len(keys) == 2


def test_a_key_is_the_same_in_every_process() -> None:
    """It names records that other processes wrote."""
    program = "from tests.schedules.test_float_keys import _dense, key; print(key(_dense(7)))"
    environment = {**os.environ, "PYTHONHASHSEED": "5", "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == key(_dense(7))
    assert '"hash":"a1e780434ae71d51"' in found.stdout


def test_a_signature_tells_inputs_from_outputs() -> None:
    """A product and its doubled form, called unscheduled as the signature says."""
    x, y = te.placeholder((7, 24), name="x"), te.placeholder((24, 9), name="y")
    total = topi.matmul(x, y)
    func = te.create_prim_func([x, y, total, topi.add(total, total)])
    given, results = signature(func)
    assert given == [("x", (7, 24), "float32"), ("y", (24, 9), "float32")]
    assert [(shape, dtype) for _, shape, dtype in results] == [((7, 9), "float32")] * 2
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-4, 5, shape).astype(dtype) for _, shape, dtype in given]
    outputs = [tvm.runtime.tensor(np.zeros(shape, dtype)) for _, shape, dtype in results]
    library = compiled(func, profile_of("llvm -mcpu=x86-64"))
    library["main"](*map(tvm.runtime.tensor, arrays), *outputs)
    np.testing.assert_array_equal(outputs[0].numpy(), arrays[0] @ arrays[1])
    np.testing.assert_array_equal(outputs[1].numpy(), 2 * (arrays[0] @ arrays[1]))


def test_a_signature_of_a_scalar() -> None:
    (func,) = lowered(R.sum, (3, 7))
    assert signature(func)[1][0][1:] == ((), "float32")
    assert len(inputs(func, 0, exact=True)) == 1
    assert '"outputs":["float32"]' in key(func)
