"""Random damage to ONNX models, reproducible from a seed."""

import random
from collections.abc import Callable

import onnx

_OPS = ["Add", "Sub", "Conv", "Clip", "Where", "Gather", "Split", "Reshape", "Loop", "NonZero", "X"]
_NUMBERS = [-(2**63), -(2**31), -7, -1, 0, 1, 2, 3, 5, 2**20, 2**31, 2**62]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, repeat or overwrite bytes."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(damaged) + 1)
        length = rng.choice([1, 1, 2, 8, 64])
        kind = rng.randrange(5)
        if kind == 0 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del damaged[at : at + length]
        elif kind == 2:
            damaged[at:at] = rng.randbytes(length)
        elif kind == 3:
            damaged[at:at] = damaged[at : at + length]
        else:
            damaged[at : at + length] = rng.randbytes(min(length, max(len(damaged) - at, 0)))
    return bytes(damaged[: rng.randrange(1, len(damaged))] if rng.random() < 0.1 else damaged)


def mutate_structure(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    """Change operators, names, attributes, shapes and types."""
    damaged = onnx.ModelProto()
    damaged.CopyFrom(model)
    for _ in range(rng.randint(1, 3)):
        rng.choice(_CHANGES)(damaged, rng)
    return damaged


def _node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    return rng.choice(model.graph.node) if model.graph.node else model.graph.node.add()


def _any_name(model: onnx.ModelProto, rng: random.Random) -> str:
    names = [n for node in model.graph.node for n in (*node.input, *node.output)]
    return rng.choice([*names, "", "nowhere"])


def _drop_node(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.node:
        del model.graph.node[rng.randrange(len(model.graph.node))]


def _repeat_node(model: onnx.ModelProto, rng: random.Random) -> None:
    model.graph.node.add().CopyFrom(_node(model, rng))


def _other_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    others = [node.op_type for node in model.graph.node]
    _node(model, rng).op_type = rng.choice([*others, *_OPS])


def _other_input(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.input:
        node.input[rng.randrange(len(node.input))] = _any_name(model, rng)


def _more_inputs(model: onnx.ModelProto, rng: random.Random) -> None:
    _node(model, rng).input.append(_any_name(model, rng))


def _fewer_inputs(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.input:
        del node.input[-1]


def _swap_inputs(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    names = list(node.input)
    rng.shuffle(names)
    node.ClearField("input")
    node.input.extend(names)


def _other_output(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.output:
        node.output[rng.randrange(len(node.output))] = _any_name(model, rng)


def _other_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    attribute = rng.choice(rng.choice(nodes).attribute)
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_NUMBERS)
    elif rng.random() < 0.2:
        attribute.type = rng.randrange(12)
    else:
        attribute.i = rng.choice(_NUMBERS)


def _drop_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if nodes:
        del rng.choice(nodes).attribute[0]


def _other_dims(model: onnx.ModelProto, rng: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_NUMBERS)
    else:
        tensor.dims.append(rng.choice([0, 1, 2]))


def _other_data(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        tensor = rng.choice(model.graph.initializer)
        tensor.raw_data = rng.randbytes(len(tensor.raw_data) + rng.choice([0, 0, 0, 1, 4]))


def _other_type(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        rng.choice(model.graph.initializer).data_type = rng.randrange(25)


def _other_initializer_name(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        rng.choice(model.graph.initializer).name = _any_name(model, rng)


def _other_input_shape(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.input).type.tensor_type
    if tensor.shape.dim and rng.random() < 0.8:
        rng.choice(tensor.shape.dim).dim_value = rng.choice(_NUMBERS)
    else:
        tensor.elem_type = rng.randrange(25)


def _other_opset(model: onnx.ModelProto, rng: random.Random) -> None:
    model.opset_import[0].version = rng.choice([0, 1, 9, 13, 16, 18, 19, 21, 22, 23, 99])


def _move_node(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = list(model.graph.node)
    if nodes:
        nodes.insert(rng.randrange(len(nodes)), nodes.pop(rng.randrange(len(nodes))))
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        model.graph.ClearField("node")
        model.graph.node.extend(copies)


_CHANGES: list[Callable[[onnx.ModelProto, random.Random], None]] = [
    _drop_node,
    _repeat_node,
    _other_operator,
    _other_input,
    _more_inputs,
    _fewer_inputs,
    _swap_inputs,
    _other_output,
    _other_attribute,
    _other_attribute,
    _drop_attribute,
    _other_dims,
    _other_data,
    _other_type,
    _other_initializer_name,
    _other_input_shape,
    _other_opset,
    _move_node,
]
