"""Normal forms of convolutions and pools: explicit pads, strides and dilations; bias an Add."""

from gsb_tvm.frontend.graph import Node
from gsb_tvm.frontend.rewriter import Rewriter


def convolution(rw: Rewriter, node: Node) -> str | None:
    """Conv without bias, then Add of the bias as (C, 1, ...)."""
    kernel = list(rw.type(node.inputs[1]).shape[2:])
    attrs = _window(rw, node, kernel)
    attrs["groups"] = groups = int(node.attrs.get("group", 1))
    channels, taken = rw.type(node.inputs[0]).shape[1], rw.type(node.inputs[1]).shape[1]
    if taken * groups != channels:
        raise rw.graph.error(
            node,
            f"its input has {channels} channels, and its weight takes {taken} in each of {groups} "
            "groups. Export the model again.",
        )
    bias = node.input(2)
    node.inputs, node.attrs = node.inputs[:2], attrs
    if not bias:
        return None
    type_ = rw.type(node.output)
    product = rw.emit("Conv", node.inputs, type_, node, **attrs)
    shape = (-1, *[1] * len(kernel))
    values = rw.graph.value(bias)
    if values is None:
        raise rw.graph.error(
            node, "its bias depends on the input, and only a constant one is compiled."
        )
    if values.shape != type_.shape[1:2]:
        raise rw.graph.error(
            node,
            f"its bias has shape {list(values.shape)}, expected [{type_.shape[1]}]. "
            "Export the model again.",
        )
    node.op, node.attrs = "Add", {}
    node.inputs = [product, rw.graph.add_constant(values.reshape(shape), bias)]
    return None


def average_pool(rw: Rewriter, node: Node) -> str | None:
    """AveragePool with explicit window attributes."""
    _pool(rw, node, count_include_pad=bool(node.attrs.get("count_include_pad", 0)))
    return None


def max_pool(rw: Rewriter, node: Node) -> str | None:
    """MaxPool with explicit window attributes; its index output is not handled."""
    _pool(rw, node)
    return None


def _pool(rw: Rewriter, node: Node, **more: bool) -> None:
    kernel = [int(n) for n in node.attrs["kernel_shape"]]
    attrs = _window(rw, node, kernel)
    ceil_mode = bool(node.attrs.get("ceil_mode", 0))
    node.attrs = attrs | {"pool_size": kernel, "ceil_mode": ceil_mode} | more
    node.outputs = node.outputs[:1]


def _window(rw: Rewriter, node: Node, kernel: list[int]) -> dict[str, object]:
    """Return strides, dilation and padding (all begins, then all ends)."""
    rank = len(kernel)
    strides = [int(n) for n in node.attrs.get("strides", [1] * rank)]
    dilation = [int(n) for n in node.attrs.get("dilations", [1] * rank)]
    padding = [int(n) for n in node.attrs.get("pads", [0] * 2 * rank)]
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = rw.type(node.inputs[0]).shape[2:]
        total = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, s, k, d in zip(sizes, strides, kernel, dilation, strict=True)
        ]
        small, large = [n // 2 for n in total], [n - n // 2 for n in total]
        padding = small + large if auto == "SAME_UPPER" else large + small
    elif auto == "VALID":
        padding = [0] * 2 * rank
    if min(padding, default=0) < 0:
        raise rw.graph.error(node, f"its pads {padding} are negative, which is not handled.")
    return {"strides": strides, "dilation": dilation, "padding": padding}
