"""Small ONNX models written node by node."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

REDUCTIONS_WITH_AXES_ATTRIBUTE_UNTIL_18 = {
    "ReduceMean",
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMin",
    "ReduceSumSquare",
    "ReduceProd",
}


class Sketch:
    """Builds a ModelProto: call it with an operator, its inputs (names or arrays), attributes."""

    def __init__(self, opset=17):
        self.opset = opset
        self.nodes, self.initializers, self.inputs, self.outputs = [], [], [], []
        self.count = 0

    def input(self, name, shape, element=TensorProto.FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def constant(self, value, name=None):
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        self.count += 1
        name = name or f"c{self.count}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def __call__(self, op, *operands, outputs=1, name="", domain="", **attrs):
        names = [o if isinstance(o, str) else self.constant(o) for o in operands]
        self.count += 1
        made = [f"v{self.count}_{i}" for i in range(outputs)]
        label = name or f"{op.lower()}{self.count}"
        self.nodes.append(
            helper.make_node(op, names, made, name=label, domain=domain or None, **attrs)
        )
        return made[0] if outputs == 1 else made

    def reduce(self, op, x, axes=None, keepdims=1):
        """A reduction in the spelling of this opset."""
        if axes is None:
            return self(op, x, keepdims=keepdims)
        if op in REDUCTIONS_WITH_AXES_ATTRIBUTE_UNTIL_18 and self.opset < 18:
            return self(op, x, axes=axes, keepdims=keepdims)
        return self(op, x, np.array(axes, np.int64), keepdims=keepdims)

    def output(self, value, name=None, element=TensorProto.FLOAT, shape=None):
        if name:
            self.nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self.outputs.append(helper.make_tensor_value_info(name or value, element, shape))

    def model(self):
        graph = helper.make_graph(
            self.nodes, "sketch", self.inputs, self.outputs, self.initializers
        )
        domains = {node.domain for node in self.nodes} - {""}
        imports = [
            helper.make_opsetid("", self.opset),
            *(helper.make_opsetid(d, 1) for d in domains),
        ]
        model = helper.make_model(
            graph, opset_imports=imports, ir_version=8, producer_name="sketch"
        )
        # onnx.checker wants outputs to have shapes; those of a wrong model stay as they are.
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
            output.CopyFrom(known)
        return model


def ints(*values):
    return np.array(values, np.int64)


def binary_weight(g, weight):
    """m * sign(W - mean W), with the weight stored twice, as the legacy exporter writes it."""
    m = g(
        "Div", g.reduce("ReduceL1", g.constant(weight.reshape(-1)), keepdims=0), float(weight.size)
    )
    w = g.constant(weight)
    centred = g("Sub", w, g.reduce("ReduceMean", w, keepdims=0))
    shape = g(
        "Where", g("Equal", ints(*weight.shape), ints(-1, -1)), ints(1, 1), ints(*weight.shape)
    )
    return g("Mul", g("Sign", centred), g("Expand", m, shape))


def layer_norm(g, x, gamma, beta, epsilon=1e-12):
    centred = g("Sub", x, g.reduce("ReduceMean", x, [-1]))
    variance = g.reduce("ReduceMean", g("Pow", centred, np.float32(2)), [-1])
    root = g("Sqrt", g("Add", variance, np.float32(epsilon)))
    return g("Add", g("Mul", gamma, g("Div", centred, root)), beta)


def masks(g, x, largest, op, factor):
    return g("Cast", g(op, x, g("Mul", largest, np.float32(factor))), to=TensorProto.FLOAT)


def tiny_gsb(opset=17, batch=1, seed=0):
    """One GSB block of width 8, 2 heads of 4, on images of 8x8: 4 patches and a token."""
    rng = np.random.default_rng(seed)
    g = Sketch(opset)
    width, heads, head, tokens = 8, 2, 4, 5

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    image = g.input("image", [batch, 3, 8, 8])
    clipped = g("Clip", draw(width, 3, 4, 4) * 90, np.float32(-128), np.float32(127))
    rounded = g("Add", g("Sub", g("Round", clipped), clipped), clipped)
    kernel = g("Mul", rounded, np.abs(draw(width, 1, 1, 1)) + 0.01)
    conv = g("Conv", image, kernel, draw(width), strides=[4, 4], kernel_shape=[4, 4])
    shape = g("Concat", g("Slice", g("Shape", conv), ints(0), ints(2), ints(0)), ints(-1), axis=0)
    patches = g("Transpose", g("Reshape", conv, shape), perm=[0, 2, 1])
    size = g("Unsqueeze", g("Gather", g("Shape", patches), np.int64(0), axis=0), ints(0))
    token = g("Expand", draw(1, 1, width), g("Concat", size, ints(1, width), axis=0))
    x = g("Add", g("Concat", token, patches, axis=1), draw(1, tokens, width))
    y = layer_norm(g, x, draw(width), draw(width))
    y = g("Add", y, g("Expand", draw(width), g("Shape", y)))
    y = g("Mul", g("Sign", y), np.float32(0.7))
    y = g("MatMul", y, g("Transpose", binary_weight(g, draw(3 * width, width)), perm=[1, 0]))
    y = g("Add", y, g("Expand", draw(1, 3 * width), g("Shape", y)))
    target = g("Concat", size, ints(tokens, 3, heads, head), axis=0)
    y = g("Transpose", g("Reshape", y, target), perm=[2, 0, 3, 1, 4])
    q, k, v = (g("Squeeze", part, ints(0)) for part in g("Split", y, ints(1, 1, 1), outputs=3))
    q, k, v = (g("Add", part, draw(heads, 1, head)) for part in (q, k, v))
    q = g("Mul", g("Sign", q), np.float32(1.1))
    k = g("Transpose", g("Mul", g("Sign", k), np.float32(0.9)), perm=[0, 1, 3, 2])
    p = g("Softmax", g("Mul", g("MatMul", q, k), np.float32(head**-0.5)), axis=-1)
    p = g("Add", p, draw(heads, tokens, tokens) * np.float32(0.1))
    top = g.reduce("ReduceMax", p, keepdims=0)
    base = g("Clip", g("Round", g("Div", p, np.float32(0.25))), np.float32(0), np.float32(1))
    p = g(
        "Add",
        g("Mul", base, np.float32(0.25)),
        g("Mul", masks(g, p, top, "Greater", 0.7), np.float32(0.3)),
    )
    t = g(
        "Add",
        masks(g, v, g.reduce("ReduceMax", v, keepdims=0), "Greater", 0.7),
        masks(g, v, g.reduce("ReduceMin", v, keepdims=0), "Less", 0.7),
    )
    v = g(
        "Add",
        g("Mul", g("Sign", v), np.float32(1.3)),
        g("Mul", g("Sign", g("Mul", v, t)), np.float32(0.4)),
    )
    y = g("Transpose", g("MatMul", p, v), perm=[0, 2, 1, 3])
    y = g("Reshape", y, g("Concat", size, ints(tokens, width), axis=0))
    y = g("Add", y, x)
    half, erf = g("Mul", y, np.float32(0.5)), g("Erf", g("Div", y, np.float32(1.41421354)))
    y = g("Clip", g("Mul", half, g("Add", erf, np.float32(1))), np.float32(-10), np.float32(10))
    y = g("Gather", y, np.int64(0), axis=1)
    y = g("Gemm", y, draw(6, width), draw(6), transB=1)
    g.output(y, "logits", shape=[batch, 6])
    return g.model()
