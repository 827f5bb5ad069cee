"""The tool of the normal forms: a new node list, built node by node."""

from collections.abc import Callable

from gsb_tvm.frontend.graph import Array, Graph, Node, Type


class Rewriter:
    """Builds the new node list; rules add nodes through it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.alias: dict[str, str] = {}
        self._producers: dict[str, Node] = {}
        self._indexed = 0

    def emit(self, op: str, inputs: list[str], type_: Type, origin: Node, **attrs: object) -> str:
        """Add a node of the given type and return the name of its output."""
        name = self.graph.fresh(origin.output)
        self.graph.types[name] = type_
        self.nodes.append(Node(op, inputs, [name], attrs, origin.name, label=origin.label))
        return name

    def type(self, name: str) -> Type:
        """Return the type of a value."""
        return self.graph.types[name]

    def producer(self, name: str) -> Node | None:
        """Return the node, already in normal form, that computes a value."""
        for node in self.nodes[self._indexed :]:
            self._producers[node.output] = node
        self._indexed = len(self.nodes)
        return self._producers.get(name)

    def operands(self, node: Node) -> list[Array | None]:
        """Return the constants among a node's inputs."""
        return [self.graph.constants.get(name) for name in node.inputs]

    def constant(self, node: Node, index: int, what: str) -> Array:
        """Return a constant operand, or raise that it depends on the input."""
        array = self.graph.constants.get(node.input(index))
        if array is None:
            raise self.graph.error(
                node,
                f"its {what} depends on the input's values, and only a constant one is compiled. "
                "Export the model with it fixed.",
            )
        return array


Rule = Callable[[Rewriter, Node], str | None]
