"""What a call is given: inputs by place or by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from gsb_tvm.dialect.errors import UsageError


def ordered(names: Sequence[str], args: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
    """Inputs in the order of ``names``; ``args`` may be one mapping from names to inputs.

    Raises
    ------
    UsageError
        One is missing, unknown, or given twice.
    """
    if len(args) == 1 and isinstance(args[0], Mapping):
        named, args = {**args[0], **named}, []
    expected = f"expected {len(names)}: {', '.join(names)}"
    if len(args) > len(names):
        raise UsageError(f"{len(args)} inputs given, {expected}.")
    given = {**dict(zip(names, args, strict=False)), **named}
    if twice := set(names[: len(args)]) & set(named):
        raise UsageError(f'input "{min(twice)}" is given twice.')
    if unknown := [str(name) for name in given if name not in names]:
        raise UsageError(f'no input is called "{unknown[0]}", {expected}.')
    if absent := [name for name in names if name not in given]:
        raise UsageError(f'input "{absent[0]}" is not given, {expected}.')
    return [given[name] for name in names]
