"""Names and types of a model's tensors in C and C++."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime.metadata import Tensor

C_TYPES = {
    "bool": "uint8_t",
    "float16": "uint16_t",  # the bits: C has no such type everywhere
    "float32": "float",
    "float64": "double",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""dtype as NumPy names it -> C type of an element."""

# Keywords of C11 and C++17, and what the generated sources call their own.
_RESERVED = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
    class compl const const_cast constexpr continue decltype default delete do double dynamic_cast
    else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
    reinterpret_cast restrict return short signed sizeof static static_assert static_cast struct
    switch template this thread_local throw true try typedef typeid typename union unsigned using
    virtual void volatile wchar_t while xor xor_eq
    arena call context given main status std
    """.split()
)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LONGEST = 40


@dataclass(frozen=True)
class Argument:
    """An input or output as C sees it: name of the parameter, type and number of elements."""

    name: str
    c_type: str
    count: int
    tensor: Tensor


def library_name(text: str) -> str:
    """Return ``text`` if a C library may have that name.

    Raises
    ------
    UsageError
        It is no lower-case identifier, or a word of C or C++.
    """
    if not _NAME.fullmatch(text) or text in _RESERVED:
        raise UsageError(
            f'"{text}" cannot name a C library, expected a lower-case C identifier of at most 63 '
            f'letters that is no keyword. Choose another, for example --name "{derived(text)}".'
        )
    return text


def derived(text: str) -> str:
    """A name that :func:`library_name` takes, as near to ``text`` as may be."""
    word = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:63].rstrip("_")
    return word if _NAME.fullmatch(word) and word not in _RESERVED else f"model_{word}".rstrip("_")


def arguments(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[list[Argument], list[Argument]]:
    """Inputs and outputs with names that differ from each other.

    Raises
    ------
    UsageError
        There are no inputs or outputs, or one has no elements, which C cannot declare.
    """
    for kind, tensors in (("input", inputs), ("output", outputs)):
        if not tensors:
            raise UsageError(f"a model without an {kind} cannot be a C library.")
        if empty := [tensor.name for tensor in tensors if not prod(tensor.shape)]:
            raise UsageError(f'{kind} "{empty[0]}" has no elements: it cannot be a parameter in C.')
    taken: set[str] = set()
    made = [
        [_argument(tensor, f"{kind}{i}", taken) for i, tensor in enumerate(tensors)]
        for kind, tensors in (("input", inputs), ("output", outputs))
    ]
    return made[0], made[1]


def _argument(tensor: Tensor, fallback: str, taken: set[str]) -> Argument:
    name = re.sub(r"\W+", "_", tensor.name, flags=re.ASCII).strip("_").lower()[:_LONGEST]
    if not name or name[0].isdigit() or name in _RESERVED or name in taken:
        name = fallback
    while name in taken:
        name += "_"
    taken.add(name)
    return Argument(name, C_TYPES[tensor.dtype], prod(tensor.shape), tensor)
