"""A light graph: nodes in topological order, constants as arrays, a static type for each value."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gsb_tvm.dialect.errors import ModelError

Array = NDArray[Any]


@dataclass(frozen=True)
class Type:
    """Shape and element type of a value."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


@dataclass
class Node:
    """One operator. An absent optional input is the empty name.

    ``name`` is the file's, for messages; ``label`` tells the module it came from, for Relax.
    """

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""
    label: str = ""

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0]

    def input(self, index: int) -> str:
        """Return the name of an input, or the empty name where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def __str__(self) -> str:
        return f'{self.op} node "{self.name or self.output}"'


@dataclass
class Graph:
    """A model between ONNX and Relax.

    ``nodes`` is in topological order; ``types`` covers every value once shapes are static.
    ``outputs`` are the values returned, ``output_names`` what the model calls them; ``batch`` is
    the size that an open batch axis was given, 0 where none is open.
    """

    name: str
    opset: int
    nodes: list[Node]
    constants: dict[str, Array]
    inputs: dict[str, Type]
    outputs: list[str]
    output_names: list[str]
    types: dict[str, Type] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    batch: int = 0
    _fresh: int = 0

    def error(self, node: Node, problem: str) -> ModelError:
        """Return the error that names this model and this node."""
        return ModelError(f"{self.name}, {node}: {problem}")

    def fresh(self, stem: str) -> str:
        """Return a name no value of the graph has."""
        while True:
            self._fresh += 1
            name = f"{stem}.{self._fresh}"
            if name not in self.types and name not in self.constants:
                return name

    def add_constant(self, array: Array, stem: str = "constant") -> str:
        """Add a constant and return its name."""
        name = self.fresh(stem)
        self.set_constant(name, array)
        return name

    def set_constant(self, name: str, array: Array) -> None:
        """Bind a value's name to an array."""
        self.constants[name] = array
        self.types[name] = Type(array.shape, array.dtype)

    def value(self, name: str) -> Array | None:
        """Return the array behind a name, or None for a value that depends on the input."""
        return self.constants.get(name)

    def rename(self, alias: dict[str, str]) -> None:
        """Let every use of a key stand for its value."""
        for node in self.nodes:
            node.inputs = [alias.get(name, name) for name in node.inputs]
        self.outputs = [alias.get(name, name) for name in self.outputs]

    def drop_dead(self) -> None:
        """Remove nodes and constants that no output needs."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: a for name, a in self.constants.items() if name in needed}


def attribute_values(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values; tensors become arrays, bytes become text."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif not isinstance(value, int | float | str):
            value = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        values[attribute.name] = value
    return values


def unrepeated(array: Array) -> Array:
    """Return an array with each axis that only repeats in memory (stride 0) cut to one element.

    Expand makes such arrays; at a batch of hundreds their full size would be gigabytes.
    """
    if array.size == 0:
        return array
    return array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)]
