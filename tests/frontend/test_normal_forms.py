"""Each construct arrives as documented and computes what ONNX Runtime computes."""

import numpy as np
import onnx
import pytest

from gsb_tvm.frontend import load
from tests.frontend.running import constants, operators, run_onnx, run_relax
from tests.frontend.sketch import Sketch, ints

FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
SHAPE = (2, 6, 8, 10)
RNG = np.random.default_rng(3)
DATA = RNG.standard_normal(SHAPE).astype(np.float32)


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def scalar(value):
    return np.asarray(value, np.float32)


def batch_norm(g, x):
    statistics = (draw(6), draw(6), draw(6), np.abs(draw(6)) + 0.5)
    return g("BatchNormalization", x, *statistics, epsilon=1e-3)


def as_rows(g, x):
    return g("Reshape", x, ints(2, 480))


def mask(g, x, threshold):
    return g("Greater", x, scalar(threshold))


def number(g, condition):
    return g("Cast", condition, to=FLOAT)


# name: (builder, operators it arrives as)
CASES = {
    "clip": (lambda g, x: g("Clip", x, scalar(-0.5), scalar(1)), ["clip"]),
    "clip of crossed bounds": (lambda g, x: g("Clip", x, scalar(2), scalar(1)), ["clip"]),
    "clip below": (lambda g, x: g("Clip", x, scalar(-0.5)), ["maximum"]),
    "clip above": (lambda g, x: g("Clip", x, "", scalar(0.5)), ["minimum"]),
    "relu": (lambda g, x: g("Relu", x), ["nn.relu"]),
    "square": (lambda g, x: g("Pow", x, scalar(2)), ["multiply"]),
    "root": (lambda g, x: g("Pow", g("Abs", x), scalar(0.5)), ["abs", "sqrt"]),
    "power 1": (lambda g, x: g("Neg", g("Pow", x, scalar(1))), ["negative"]),
    "cube": (lambda g, x: g("Pow", x, scalar(3)), ["power"]),
    "integer exponent": (lambda g, x: g("Pow", x, np.int64(3)), ["power"]),
    "constant first": (lambda g, x: g("Add", scalar(2), x), ["add"]),
    "constant minus": (lambda g, x: g("Sub", scalar(2), x), ["subtract"]),
    "mirrored": (lambda g, x: number(g, g("Less", scalar(0.1), x)), ["greater", "astype"]),
    "logic": (
        lambda g, x: number(
            g, g("Xor", g("Or", mask(g, x, 0), mask(g, x, 1)), g("Not", mask(g, x, 0.5)))
        ),
        ["greater", "greater", "logical_or", "greater", "logical_not", "logical_xor", "astype"],
    ),
    "maximum of three": (
        lambda g, x: g("Max", x, scalar(0.1), g("Neg", x)),
        ["negative", "maximum", "maximum"],
    ),
    "sum of three": (lambda g, x: g("Sum", x, x, scalar(1)), ["add", "add"]),
    "dropped": (lambda g, x: g("Neg", g("Dropout", g("Identity", x))), ["negative"]),
    "same cast": (lambda g, x: g("Neg", g("Cast", x, to=FLOAT)), ["negative"]),
    "same reshape": (lambda g, x: g("Neg", g("Reshape", x, ints(*SHAPE))), ["negative"]),
    "same transpose": (
        lambda g, x: g("Neg", g("Transpose", x, perm=[0, 1, 2, 3])),
        ["negative"],
    ),
    "reshape": (lambda g, x: g("Reshape", x, ints(0, -1, 10)), ["reshape"]),
    "flatten": (lambda g, x: g("Flatten", x, axis=-1), ["reshape"]),
    "unsqueeze": (lambda g, x: g("Unsqueeze", x, ints(0, -1)), ["expand_dims"]),
    "squeeze all": (
        lambda g, x: g("Squeeze", g("Slice", x, ints(1), ints(2), ints(0))),
        ["strided_slice", "squeeze"],
    ),
    "transpose": (lambda g, x: g("Transpose", x), ["permute_dims"]),
    "expand": (
        lambda g, x: g("Expand", g("Unsqueeze", x, ints(1)), ints(1, 3, 1, 1, 1)),
        ["expand_dims", "broadcast_to"],
    ),
    "tile": (lambda g, x: g("Tile", x, ints(1, 2, 1, 3)), ["tile"]),
    "slice backwards": (
        lambda g, x: g("Slice", x, ints(-1), ints(-(2**31)), ints(3), ints(-2)),
        ["strided_slice"],
    ),
    "slice of two axes": (
        lambda g, x: g("Slice", x, ints(3, 1), ints(2**62, -1), ints(-1, 1), ints(2, 1)),
        ["strided_slice"],
    ),
    "full slice": (lambda g, x: g("Neg", g("Slice", x, ints(0), ints(99), ints(2))), ["negative"]),
    "split": (
        lambda g, x: g("Concat", *g("Split", x, ints(1, 5), outputs=2, axis=1)[::-1], axis=1),
        ["strided_slice", "strided_slice", "concat"],
    ),
    "gather one": (lambda g, x: g("Gather", x, np.int64(-2), axis=2), ["strided_slice", "squeeze"]),
    "gather a list of one": (lambda g, x: g("Gather", x, ints(3), axis=1), ["strided_slice"]),
    "gather list": (lambda g, x: g("Gather", x, ints(3, 0, -1), axis=1), ["take"]),
    "mean": (lambda g, x: g.reduce("ReduceMean", x, [-1]), ["mean"]),
    "maximum of all": (lambda g, x: g.reduce("ReduceMax", x, keepdims=0), ["max"]),
    "minimum of rows": (lambda g, x: g.reduce("ReduceMin", x, [1, 3], keepdims=0), ["min"]),
    "L1": (lambda g, x: g.reduce("ReduceL1", x, [0]), ["abs", "sum"]),
    "L2": (lambda g, x: g.reduce("ReduceL2", x, [2]), ["multiply", "sum", "sqrt"]),
    "sum of squares": (lambda g, x: g.reduce("ReduceSumSquare", x, [2]), ["multiply", "sum"]),
    "softmax": (lambda g, x: g("Softmax", x, axis=1), ["nn.softmax"]),
    "layer norm": (
        lambda g, x: g("LayerNormalization", x, draw(10), draw(10), epsilon=1e-4),
        ["nn.layer_norm"],
    ),
    "layer norm without shift": (
        lambda g, x: g("LayerNormalization", x, draw(8, 10), axis=-2),
        ["nn.layer_norm"],
    ),
    "batch norm": (batch_norm, ["multiply", "add"]),
    "PRelu": (lambda g, x: g("PRelu", x, draw(6, 1, 1)), ["multiply", "less", "where"]),
    "leaky": (lambda g, x: g("LeakyRelu", x, alpha=0.2), ["multiply", "less", "where"]),
    "global average": (lambda g, x: g("GlobalAveragePool", x), ["mean"]),
    "average pool": (
        lambda g, x: g(
            "AveragePool", x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1],
            count_include_pad=1,
        ),
        ["nn.avg_pool2d"],
    ),
    "average pool of rank 3": (
        lambda g, x: g("AveragePool", g("Reshape", x, ints(2, 6, 80)), kernel_shape=[4],
                       strides=[4]),
        ["reshape", "nn.avg_pool1d"],
    ),
    "max pool": (
        lambda g, x: g("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        ["nn.max_pool2d"],
    ),
    "convolution": (
        lambda g, x: g("Conv", x, draw(4, 3, 3, 3), draw(4), group=2, dilations=[2, 1],
                       kernel_shape=[3, 3], pads=[1, 2, 0, 1], strides=[1, 2]),
        ["nn.conv2d", "add"],
    ),
    "convolution, same upper": (
        lambda g, x: g("Conv", x, draw(4, 6, 3, 2), auto_pad="SAME_UPPER", strides=[2, 1]),
        ["nn.conv2d"],
    ),
    "linear": (
        lambda g, x: g("Gemm", as_rows(g, x), draw(5, 480), draw(5), transB=1),
        ["reshape", "matmul", "add"],
    ),
    "scaled linear": (
        lambda g, x: g("Gemm", as_rows(g, x), draw(2, 7), draw(1, 7), transA=1, alpha=0.5,
                       beta=2.0),
        ["reshape", "permute_dims", "matmul", "multiply", "add"],
    ),
    "product of two": (
        lambda g, x: g("MatMul", x, g("Transpose", x, perm=[0, 1, 3, 2])),
        ["permute_dims", "matmul"],
    ),
    "erf, exp, log, tanh": (
        lambda g, x: g("Tanh", g("Log", g("Exp", g("Erf", x)))),
        ["erf", "exp", "log", "tanh"],
    ),
    "sigmoid": (lambda g, x: g("Sigmoid", x), ["sigmoid"]),
    "floor and ceil": (lambda g, x: g("Sub", g("Ceil", x), g("Floor", x)),
                       ["ceil", "floor", "subtract"]),
    "round halves to even": (
        lambda g, x: g("Round", g("Div", g("Round", g("Mul", x, scalar(4))), scalar(2))),
        ["multiply", "round", "divide", "round"],
    ),
    "hard sigmoid": (lambda g, x: g("HardSigmoid", x), ["multiply", "add", "clip"]),
    "hard swish": (lambda g, x: g("HardSwish", x), ["multiply", "add", "clip", "multiply"]),
    "reciprocal": (
        lambda g, x: g("Reciprocal", g("Exp", x)),
        ["exp", "divide"],
    ),
    "log softmax": (lambda g, x: g("LogSoftmax", x, axis=2), ["nn.log_softmax"]),
    "instance norm": (
        lambda g, x: g("InstanceNormalization", x, draw(6), draw(6)),
        ["mean", "subtract", "multiply", "mean", "add", "sqrt", "divide", "multiply", "add"],
    ),
    "pad": (
        lambda g, x: g("Pad", x, ints(0, 0, 1, 0, 0, 2, 0, 3), scalar(0.5)),
        ["concat", "concat", "concat"],
    ),
    "resize by scales": (
        lambda g, x: g("Resize", x, "", scalar([1, 1, 2, 3]), mode="nearest",
                       coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        ["reshape", "broadcast_to", "reshape"],
    ),
    "resize by sizes": (
        lambda g, x: g("Resize", x, "", "", ints(2, 6, 16, 40), mode="nearest"),
        ["reshape", "broadcast_to", "reshape"],
    ),
    "choice of integers": (
        lambda g, x: number(g, g("Where", mask(g, x, 0), np.int64(0), np.int64(1))),
        ["greater", "where"],
    ),
    "integers": (
        lambda g, x: number(g, g("Add", g("Cast", x, to=onnx.TensorProto.INT64), np.int64(3))),
        ["astype", "add", "astype"],
    ),
    "where": (lambda g, x: g("Where", mask(g, x, 0), x, scalar(0.25)), ["greater", "where"]),
}  # fmt: skip


def model_of(names, opset):
    g = Sketch(opset)
    x = g.input("x", list(SHAPE))
    for name in names:
        g.output(CASES[name][0](g, x), name.replace(" ", "_"))
    return g.model()


@pytest.mark.parametrize("name", CASES)
def test_arrives_as_documented(name):
    assert operators(load(model_of([name], 17)).module) == CASES[name][1]


@pytest.mark.parametrize("opset", [17, 22])
def test_computes_what_onnx_runtime_computes(opset):
    model = model_of(CASES, opset)
    ours = run_relax(load(model).module, DATA)
    for name, found, expected in zip(CASES, ours, run_onnx(model, DATA), strict=True):
        # The sums of 480 products of normal numbers differ by their order: 480 * 2^-24 * 4.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1.2e-4, err_msg=name)


def test_three_slices_and_a_split_arrive_alike():
    def split(g, x):
        return [g("Squeeze", part, ints(0)) for part in g("Split", x, ints(1, 1, 1), outputs=3)]

    def slices(g, x):
        return [
            g("Squeeze", g("Slice", x, ints(i), ints(i + 1), ints(0)), ints(0)) for i in range(3)
        ]

    def gathers(g, x):
        return [g("Gather", x, np.int64(i), axis=0) for i in range(3)]

    found = []
    for build in (split, slices, gathers):
        g = Sketch()
        for part in build(g, g.input("x", [3, 1, 2, 4])):
            g.output(part)
        found.append(sorted(operators(load(g.model()).module)))
    assert found[0] == found[1] == found[2] == ["squeeze"] * 3 + ["strided_slice"] * 3


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.arange(8.0), (8,)),
        (np.broadcast_to(np.arange(8.0), (2, 4, 8)).copy(), (8,)),
        (np.zeros((2, 4, 8)), (8,)),
        (np.full((1, 1, 1), 3.0), ()),
        (np.arange(4.0).reshape(4, 1) * np.ones((2, 4, 8)), (4, 8)),
        (np.arange(4.0).reshape(1, 4, 1), (4, 1)),
        (np.arange(16.0).reshape(2, 1, 8), (2, 1, 8)),
        (np.arange(16.0).reshape(2, 1, 8) + np.zeros((2, 4, 8)), (2, 1, 8)),
    ],
)
def test_constants_of_elementwise_operators_have_their_smallest_shape(array, shape):
    g = Sketch()
    x = g.input("x", [2, 4, 8])
    g.output(g("Mul", g.constant(array), x))
    (found,) = constants(load(g.model()).module, "multiply")
    assert found.shape == shape
    np.testing.assert_array_equal(
        np.broadcast_to(found, (2, 4, 8)), np.broadcast_to(array, (2, 4, 8))
    )


def test_a_constant_that_gives_the_shape_keeps_it():
    g = Sketch()
    g.output(g("Add", g.input("x", [8]), np.zeros((2, 4, 8))))
    imported = load(g.model())
    assert imported.outputs[0].shape == (2, 4, 8)
    assert constants(imported.module, "add")[0].shape == (2, 4, 8)


def test_both_thresholds_share_one_maximum():
    g = Sketch()
    x = g.input("x", [2, 4])
    masks = [
        number(g, g("Greater", x, g("Mul", g.reduce("ReduceMax", x, keepdims=0), scalar(t))))
        for t in (0.7, 0.9)
    ]
    g.output(g("Add", *masks))
    assert operators(load(g.model()).module).count("max") == 1


def test_a_copy_of_a_whole_tensor_by_scatter_goes():
    g = Sketch()
    x = g.input("x", [2, 3])
    indices = np.stack(np.meshgrid(np.arange(2), np.arange(3), indexing="ij"), -1).astype(np.int64)
    g.output(g("Relu", g("ScatterND", np.zeros((2, 3)), indices, g("Neg", x))))
    assert operators(load(g.model()).module) == ["negative", "nn.relu"]
