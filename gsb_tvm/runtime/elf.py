"""Writing a relocatable ELF object that holds only data.

Constants and metadata get into the library by way of such an object: no assembler is needed for
it, whatever machine it is for, and no constant goes through a compiler.

Source: System V ABI, "Object Files"; elf.h.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64
"""Of constants and of every tensor, in bytes: vector loads of compiled code take it for granted."""

MACHINES = {"x86_64": 62, "aarch64": 183}
"""Architecture -> e_machine."""

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB = 1, 2, 3
_SHF_ALLOC = 2
_STB_GLOBAL_OBJECT = 1 << 4 | 1
_ET_REL = 1


@dataclass(frozen=True)
class Blob:
    """Read-only bytes: the section and the global symbol they get, aligned to ``ALIGNMENT``."""

    section: str
    symbol: str
    data: bytes


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    flags: int
    data: bytes
    link: int = 0
    info: int = 0
    align: int = 1
    entry: int = 0


def data_object(arch: str, blobs: Sequence[Blob]) -> bytes:
    """Return an ELF object for ``arch`` with one section and one symbol for each blob."""
    names = b"\0" + b"".join(blob.symbol.encode() + b"\0" for blob in blobs)
    symbols, at = bytearray(_SYM.size), 1
    for number, blob in enumerate(blobs, start=1):
        symbols += _SYM.pack(at, _STB_GLOBAL_OBJECT, 0, number, 0, len(blob.data))
        at += len(blob.symbol) + 1
    sections = [
        *(_Section(b.section, _SHT_PROGBITS, _SHF_ALLOC, b.data, align=ALIGNMENT) for b in blobs),
        # Without it GNU ld makes the stack of the whole process executable.
        _Section(".note.GNU-stack", _SHT_PROGBITS, 0, b""),
    ]
    strings = len(sections) + 2
    sections += [
        _Section(".symtab", _SHT_SYMTAB, 0, bytes(symbols), strings, 1, 8, _SYM.size),
        _Section(".strtab", _SHT_STRTAB, 0, names),
    ]
    return _assemble(arch, sections)


def _assemble(arch: str, sections: Sequence[_Section]) -> bytes:
    names = b"\0"
    offsets = []
    for section in [*sections, _Section(".shstrtab", _SHT_STRTAB, 0, b"")]:
        offsets.append(len(names))
        names += section.name.encode() + b"\0"
    sections = [*sections, _Section(".shstrtab", _SHT_STRTAB, 0, names)]
    body, headers = bytearray(_EHDR.size), bytearray(_SHDR.size)
    for name, s in zip(offsets, sections, strict=True):
        body += bytes(-len(body) % s.align)
        headers += _SHDR.pack(
            name, s.kind, s.flags, 0, len(body), len(s.data), s.link, s.info, s.align, s.entry
        )
        body += s.data
    body += bytes(-len(body) % 8)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    count = len(sections) + 1
    _EHDR.pack_into(
        body, 0, ident, _ET_REL, MACHINES[arch], 1, 0, 0, len(body), 0,
        _EHDR.size, 0, 0, _SHDR.size, count, count - 1,
    )  # fmt: skip
    return bytes(body + headers)
