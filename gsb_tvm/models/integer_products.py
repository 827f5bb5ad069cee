"""Products of quantised tensors as the exactness contract means them: sums of integers.

A tensor that a quantiser wrote holds few magnitudes. Split by magnitude it is a sum of scaled sign
planes, whose products are integers below 2^24 and so exact in float32 in any order. Ordinary
matrix products sum rounded terms instead: a sum that cancels leaves a residue, and the sign of zero
becomes the sign of that residue.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# GSB has three groups of values and four of attention weights; an 8-bit head has 129 magnitudes.
_MOST_MAGNITUDES = 8
_MATMULS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


class IntegerProducts(TorchFunctionMode):
    """While entered, ``linear`` and ``matmul`` of quantised tensors sum integers.

    A convolution, whose input is float, is summed in float64 and rounded once.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace the three functions, leave every other one as it is."""
        if function is torch.nn.functional.linear and len(args) == 2:
            return product(args[0], args[1].T)
        if function in _MATMULS:
            return product(*args)
        if function is torch.nn.functional.conv2d:
            wide = [x.double() if isinstance(x, Tensor) else x for x in args]
            return function(*wide, **(kwargs or {})).to(args[0].dtype)
        return function(*args, **(kwargs or {}))


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` in their dtype.

    With one magnitude on each side the integer is multiplied by the rounded product of the two.
    With several, the integers of all pairs are scaled and summed in float64, then rounded once.
    Tensors of more than 8 magnitudes are multiplied in float64 as they are.
    """
    left, right = _magnitudes(a), _magnitudes(b)
    if left is None or right is None:
        return torch.matmul(a.double(), b.double()).to(a.dtype)
    if len(left) == len(right) == 1:
        return torch.matmul(a.sign(), b.sign()) * (left[0] * right[0])
    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    total = torch.zeros((*shape, a.shape[-2], b.shape[-1]), dtype=torch.float64)
    for u in left:
        for w in right:
            total += torch.matmul(_plane(a, u), _plane(b, w)).double() * (u.double() * w.double())
    return total.to(a.dtype)


def _magnitudes(x: Tensor) -> Tensor | None:
    """Magnitudes other than zero, at least one; None where there are too many."""
    found = x.abs().unique()
    found = found[found > 0] if (found > 0).any() else torch.ones(1, dtype=x.dtype)
    return found if len(found) <= _MOST_MAGNITUDES else None


def _plane(x: Tensor, magnitude: Tensor) -> Tensor:
    """Signs of the elements of one magnitude, 0 elsewhere."""
    return x.sign() * (x.abs() == magnitude)
