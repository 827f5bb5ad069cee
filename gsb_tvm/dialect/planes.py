"""What specs are made of: tensors, kinds of planes, and how a float becomes a bit."""

from dataclasses import dataclass
from enum import StrEnum

from gsb_tvm.dialect.bits import Rows

Tensor = tuple[str, tuple[int, ...], str]
"""Name, shape and element type of an argument."""


class Kind(StrEnum):
    """Kind of a plane."""

    SIGN = "sign"  # {-1, +1}: one packed tensor
    MASKED = "masked"  # {-1, 0, +1}: bits, nonzero, and a flag zeros[1] that is 0 when none is 0
    MASK = "mask"  # {0, 1}: one packed tensor


def plane(name: str, kind: Kind, rows: Rows) -> list[Tensor]:
    """Tensors that carry one plane of a live value."""
    tensors: list[Tensor] = [(f"{name}_bits", rows.packed_shape, "uint32")]
    if kind is Kind.MASKED:
        tensors += [
            (f"{name}_nonzero", rows.packed_shape, "uint32"),
            (f"{name}_zeros", (1,), "int32"),
        ]
    return tensors


@dataclass(frozen=True)
class Compare:
    """How a float becomes a bit: ``u > bound`` where strict, else ``u >= bound``.

    A masked sign has ``bound == 0`` and strict; its nonzero bit is ``u != 0`` (NaN counts as 0).
    """

    kind: Kind
    bound: float = 0.0
    strict: bool = True
