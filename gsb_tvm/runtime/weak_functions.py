"""Keeping the weak functions of a relocatable ELF object to itself.

TVM puts conversions of float16 under the names of the compiler's own into every object, compiled
for the model's CPU. Left for other objects to call, they become the float16 of a whole program that
a model is linked into, which then ends in SIGILL on an older CPU before the model could refuse it.

Source: System V ABI, "Object Files"; elf.h.
"""

import struct

_E_SHOFF = struct.Struct("<40xQ")
_E_SHNUM = struct.Struct("<60xH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SH_INFO = 44  # offset in an entry; of a symbol table it is the number of local symbols
_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_SHT_SYMTAB, _SHT_RELA = 2, 4
_STB_LOCAL_FUNC, _STB_WEAK_FUNC = 0 << 4 | 2, 2 << 4 | 2


def with_local_weak_functions(data: bytes) -> bytes:
    """The object with its weak functions as local symbols, which stand before all others."""
    out = bytearray(data)
    (table,) = _E_SHOFF.unpack_from(data)
    (count,) = _E_SHNUM.unpack_from(data)
    headers = [_SHDR.unpack_from(data, table + _SHDR.size * i) for i in range(count)]
    number = next(i for i, header in enumerate(headers) if header[1] == _SHT_SYMTAB)
    _, _, _, _, at, size, _, locals_, _, _ = headers[number]
    symbols = list(_SYM.iter_unpack(data[at : at + size]))
    weak = [i for i, symbol in enumerate(symbols) if symbol[1] == _STB_WEAK_FUNC]
    others = [i for i in range(locals_, len(symbols)) if i not in weak]
    order = [*range(locals_), *weak, *others]
    for new, old in enumerate(order):
        name, info, *rest = symbols[old]
        kept = _STB_LOCAL_FUNC if old in weak else info
        _SYM.pack_into(out, at + _SYM.size * new, name, kept, *rest)
    struct.pack_into("<I", out, table + _SHDR.size * number + _SH_INFO, locals_ + len(weak))
    places = {old: new for new, old in enumerate(order)}
    for _, kind, _, _, at, size, link, *_ in headers:
        if kind == _SHT_RELA and link == number:
            _renumber(out, at, size, places)
    return bytes(out)


def _renumber(out: bytearray, at: int, size: int, places: dict[int, int]) -> None:
    """Let relocations name their symbols by their new places."""
    for entry in range(at, at + size, _RELA.size):
        offset, info, addend = _RELA.unpack_from(out, entry)
        moved = places[info >> 32] << 32 | info & 0xFFFFFFFF
        _RELA.pack_into(out, entry, offset, moved, addend)
