"""Figures that were recorded, and whether new ones keep to them."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from gsb_tvm.dialect.errors import OutputError, UsageError

TOLERANCE = 0.02
"""By which a figure may exceed the recorded one: C compilers differ in what is around kernels."""


class Figure(msgspec.Struct, frozen=True):
    """Instructions of one call.

    ``engine`` is "ours" or "ONNX Runtime" with its version, ``cpu`` the emulated one.
    """

    model: str
    engine: str
    cpu: str
    instructions: int

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a figure of."""
        return self.model, self.engine, self.cpu


def read(path: Path) -> list[Figure]:
    """Figures of a file.

    Raises
    ------
    UsageError
        It cannot be read, or holds something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Figure])
    except OSError as err:
        raise UsageError(f"{path}: cannot be read ({err.strerror}).") from err
    except msgspec.MsgspecError as err:
        raise UsageError(f"{path}: holds no recorded figures ({err}).") from err


def record(path: Path, figures: Sequence[Figure]) -> None:
    """Write figures to a file, in the place of older ones of the same.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    known = {each.key: each for each in (*(read(path) if path.exists() else ()), *figures)}
    text = msgspec.json.encode([known[key] for key in sorted(known)])
    try:
        path.write_bytes(msgspec.json.format(text, indent=2) + b"\n")
    except OSError as err:
        raise OutputError(f"{path}: cannot be written ({err.strerror}).") from err


def excess(figures: Sequence[Figure], recorded: Sequence[Figure]) -> list[str]:
    """A sentence for each figure that exceeds the recorded one, or that has none."""
    known = {each.key: each.instructions for each in recorded}
    found = []
    for each in figures:
        what = f"{each.model} by {each.engine} on {each.cpu}"
        if each.key not in known:
            found.append(f"{what}: no figure is recorded. Record it with --record.")
        elif each.instructions > (1 + TOLERANCE) * known[each.key]:
            more = each.instructions / known[each.key] - 1
            found.append(
                f"{what}: {each.instructions:,} instructions, {more:.1%} more than the recorded "
                f"{known[each.key]:,}, expected at most {TOLERANCE:.0%} more."
            )
    return found
