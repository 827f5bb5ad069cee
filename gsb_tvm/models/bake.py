"""The oracles of the exactness contract: weights folded in float64, activations as asked for."""

import contextlib
import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gsb_tvm.models.gsb import Gsb
from gsb_tvm.models.integer_products import IntegerProducts
from gsb_tvm.models.layers import Activation, QuantLinear, QuantPatchConv, Weight, quantize
from gsb_tvm.models.quantizers import levels


def bake_weights(model: Gsb) -> Gsb:
    """Return a copy in evaluation mode whose weights are the quantised values themselves.

    Mean and 1-norm of a binary weight are summed in float64 and rounded once to float32. 8-bit
    weights are ``round(clamp(w / a)) * a`` in float32, free of straight-through residue.
    """
    baked = copy.deepcopy(model).eval()
    with torch.no_grad():
        for layer in baked.modules():
            if isinstance(layer, QuantPatchConv):
                layer.weight.copy_(_rounded_patches(layer))
                layer.baked = True
            elif isinstance(layer, QuantLinear):
                layer.weight.copy_(_quantized(layer))
                layer.baked = True
    return baked


def _quantized(layer: QuantLinear) -> Tensor:
    if layer.weight_kind is Weight.INT8:
        return quantize(layer.weight, layer.weight_clip_val, Activation.INT8, training=False)
    exact = layer.weight.double()
    mean = exact.mean().float()
    scale = exact.abs().mean().float()
    return (layer.weight - mean).sign() * scale


def _rounded_patches(layer: QuantPatchConv) -> Tensor:
    alpha = layer.alpha.view(-1, 1, 1, 1)
    low, high = levels(8, signed=True)
    return (layer.weight / alpha).clamp(low, high).round() * alpha


def reference_logits(
    model: Gsb,
    images: Tensor | NDArray[np.floating],
    dtype: torch.dtype = torch.float64,
    *,
    batch: int = 1,
    integer_products: bool = False,
) -> NDArray[np.floating]:
    """Run the network on baked weights with activations in ``dtype``.

    Parameters
    ----------
    images
        ``(n, channels, image_size, image_size)``; ``n`` is a multiple of ``batch``.
    batch
        Images a forward. The group masks span the batch, so logits depend on it.
    integer_products
        Sum products of quantised tensors as integers. With float32 this is what compiled code
        computes, step by step. It matters where values lie on a grid, as with untrained
        parameters: ``v > 0.7 max(v)`` is then often a tie that only the rounding decides, and
        float64 decides it otherwise.

    Returns
    -------
    ndarray
        ``(n, classes)`` logits.
    """
    baked = bake_weights(model).to(dtype)
    inputs = torch.as_tensor(images).to(dtype)
    if len(inputs) % batch:
        raise ValueError(f"{len(inputs)} images do not fill batches of {batch}")
    products = IntegerProducts() if integer_products else contextlib.nullcontext()
    with torch.no_grad(), products:
        return torch.cat([baked(chunk) for chunk in inputs.split(batch)]).numpy()
