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

_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
    char8_t class co_await co_return co_yield compl concept const const_cast consteval constexpr
    constinit continue decltype default delete do double dynamic_cast else enum explicit export
    extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
    nullptr operator or or_eq private protected public register reinterpret_cast requires restrict
    return short signed sizeof static static_assert static_cast struct switch template this
    thread_local throw true try typedef typeid typename typeof typeof_unqual union unsigned using
    virtual void volatile wchar_t while xor xor_eq
    """.split()
)
"""Of C up to C23 and C++ up to C++20."""

# What the generated sources call their own where a tensor's name stands, too.
_OWN = frozenset("arena call check context given main run_on_threads status std".split())
# A library <name> brings include/<name>.h, lib<name>.a and, in C++, a namespace <name>: it must not
# hide a header or library of the system, nor have the name of a function that headers bring along.
_SYSTEM = frozenset(
    """
    aio alloca assert byteswap complex cpio ctype dirent dlfcn elf endian errno error execinfo fcntl
    features fenv float fmtmsg fnmatch ftw getopt glob grp iconv inttypes iso646 langinfo libgen
    limits link locale malloc math memory monetary mqueue netdb nl_types poll pthread pwd regex
    resolv sched search semaphore setjmp signal spawn stdalign stdarg stdatomic stdbit stdbool
    stdckdint stddef stdint stdio stdlib stdnoreturn string strings syscall syslog tar termios
    tgmath threads time uchar ulimit unistd utime utmpx values wait wchar wctype wordexp
    anl atomic c crypt dl gcc m rt util
    abort abs acos acosh asin asinh atan atan2 atanh cbrt ceil clock clone cos cosh div erf erfc
    exit exp exp2 expm1 fabs fdim floor fma fmax fmin fmod free frexp gamma hypot index j0 j1 jn
    ldexp lgamma log log10 log1p log2 logb modf nan pow printf rand random realloc remainder remove
    rename rewind rint round scanf select sin sinh sqrt system tan tanh tgamma trunc y0 y1 yn
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
        It is no lower-case identifier, or a word of C, C++ or their libraries.
    """
    if not _may_name_a_library(text):
        raise UsageError(
            f'"{text}" cannot name a C library, expected a lower-case C identifier of at most 63 '
            "letters that is no keyword, header, library or function of C. Choose another, for "
            f'example --name "{derived(text)}".'
        )
    return text


def derived(text: str) -> str:
    """A name that :func:`library_name` takes, as near to ``text`` as may be."""
    word = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:63].rstrip("_")
    return word if _may_name_a_library(word) else f"model_{word}"[:63].rstrip("_")


def _may_name_a_library(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and text not in _KEYWORDS | _OWN | _SYSTEM


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
    if not name or name[0].isdigit() or name in _KEYWORDS | _OWN | taken:
        name = fallback
    while name in taken:
        name += "_"
    taken.add(name)
    return Argument(name, C_TYPES[tensor.dtype], prod(tensor.shape), tensor)
