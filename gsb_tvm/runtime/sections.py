"""Finding a section in an ELF file that may be damaged.

A few numbers are read in place; nothing keeps a mapped file open longer than its caller does.

Source: System V ABI, "Object Files"; elf.h.
"""

import mmap
import struct

from gsb_tvm.dialect.errors import ArtefactError

Contents = bytes | mmap.mmap
"""A file's bytes, read or mapped."""

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_EHDR_BYTES = 64
_E_SHOFF = struct.Struct("<40xQ")
_E_SECTIONS = struct.Struct("<58xHHH")  # e_shentsize, e_shnum, e_shstrndx
_SHDR = struct.Struct("<I20xQQ24x")  # sh_name, sh_offset, sh_size of an entry of 64 bytes

_WAY_OUT = "Give the .so that gsb-tvm compile wrote."


def find_section(data: Contents, section: str, name: str) -> tuple[int, int]:
    """Offset and size of ``section`` in an ELF file; ``name`` is for messages.

    Raises
    ------
    ArtefactError
        It is no 64-bit little-endian ELF file, is cut off, damaged, or has no such section.
    """
    if data[:4] != _ELF64_LITTLE[:4]:
        raise ArtefactError(f"{name}: not a shared library (no ELF header). {_WAY_OUT}")
    if len(data) < _EHDR_BYTES or data[:6] != _ELF64_LITTLE:
        raise ArtefactError(f"{name}: cut off, or not a 64-bit little-endian library. {_WAY_OUT}")
    (table,) = _E_SHOFF.unpack_from(data)
    entry, count, strings = _E_SECTIONS.unpack_from(data)
    # The section table is the last thing in the file: a file cut anywhere lacks a part of it.
    if table + entry * count > len(data):
        raise ArtefactError(
            f"{name}: cut off, {len(data)} bytes are left of at least {table + entry * count}. "
            "Copy it again or compile the model again."
        )
    if count and (entry != _SHDR.size or strings >= count):
        raise ArtefactError(f"{name}: a damaged library (its table of sections makes no sense).")
    headers = [_SHDR.unpack_from(data, table + entry * i) for i in range(count)]
    wanted = section.encode() + b"\0"
    for at, offset, size in headers:
        start = headers[strings][1] + at
        if data[start : start + len(wanted)] == wanted and offset + size <= len(data):
            return offset, size
    raise ArtefactError(f"{name}: not made by gsb_tvm (no section {section}). {_WAY_OUT}")
