"""How large the parts of a shared library for a GPU are."""

from dataclasses import dataclass

from gsb_tvm.runtime.cuda.symbols import cubin_symbol, ptx_symbol, section_of
from gsb_tvm.runtime.metadata import WEIGHTS_SECTION, Program
from gsb_tvm.runtime.sections import Contents, find_section


@dataclass(frozen=True)
class CodeBytes:
    """Bytes of a program's machine code, and of its PTX."""

    cubin: int
    ptx: int


def code_bytes(data: Contents, program: Program, name: str) -> CodeBytes:
    """Of a program of the library ``data``; ``name`` is for messages.

    Raises
    ------
    ArtefactError
        The library does not hold them.
    """
    cubin, ptx = (
        find_section(data, section_of(symbol), name)[1]
        for symbol in (cubin_symbol(program.entry), ptx_symbol(program.entry))
    )
    return CodeBytes(cubin, ptx)


def constant_bytes(data: Contents, name: str) -> int:
    """Of the constants, which all programs share; raises as :func:`code_bytes`."""
    return find_section(data, WEIGHTS_SECTION, name)[1]
