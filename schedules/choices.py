"""What may be chosen of a kernel, and what was: parameters by name, as records hold them.

A family of kernels says its parameters in a frozen dataclass. Its *rule* makes one from the spec
and the machine, its *space* all that are worth trying. Here both become plain mappings and back.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from gsb_tvm.dialect.chosen import AS_BY_RULE

Value = bool | int | float | str
Choice = Mapping[str, Value]
"""Parameters of a kernel by name; those that are None are left out."""

_Parameters = TypeVar("_Parameters")


def as_choice(parameters: Any) -> dict[str, Value]:
    """A family's parameters as a mapping."""
    found = msgspec.to_builtins(parameters)
    return {name: value for name, value in found.items() if value is not None}


def as_parameters(choice: Choice, cls: type[_Parameters]) -> _Parameters:
    """Inverse of :func:`as_choice`.

    Raises
    ------
    msgspec.ValidationError
        A parameter is missing or has another type.
    """
    return msgspec.convert(dict(choice), cls)


def distinct(rule: Any, space: Iterable[Any]) -> tuple[dict[str, Value], ...]:
    """The rule's choice, then the others of a space, each once, in order."""
    found: list[dict[str, Value]] = []
    for parameters in (rule, *space):
        choice = as_choice(parameters)
        if choice not in found:
            found.append(choice)
    return tuple(found)


def frozen(choice: Choice) -> tuple[tuple[str, Value], ...]:
    """A choice as a key: equal for equal choices, in whatever order their parameters are."""
    return tuple(sorted(choice.items()))


def text_of(choice: Choice) -> str:
    """A choice for people."""
    return " ".join(f"{name}={value}" for name, value in choice.items()) or AS_BY_RULE
