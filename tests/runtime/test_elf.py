import io

import pytest
from elftools.elf.elffile import ELFFile

from gsb_tvm.runtime.elf import Blob, data_object


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_holds_each_blob_under_its_symbol(arch: str) -> None:
    blobs = [Blob(".rodata", "first", b"abc"), Blob(".more", "second", bytes(range(200)))]
    elf = ELFFile(io.BytesIO(data_object(arch, blobs)))
    assert elf["e_machine"] == {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}[arch]
    assert elf["e_type"] == "ET_REL"
    symbols = elf.get_section_by_name(".symtab")
    for blob in blobs:
        (symbol,) = symbols.get_symbol_by_name(blob.symbol)
        section = elf.get_section(symbol["st_shndx"])
        assert section.name == blob.section
        assert section.data() == blob.data
        assert section["sh_addralign"] == 64
        assert section["sh_offset"] % 64 == 0
        assert symbol["st_size"] == len(blob.data)
        assert symbol["st_info"]["bind"] == "STB_GLOBAL"


def test_asks_for_no_executable_stack() -> None:
    elf = ELFFile(io.BytesIO(data_object("x86_64", [])))
    note = elf.get_section_by_name(".note.GNU-stack")
    assert note["sh_flags"] == 0


def test_equal_blobs_give_equal_bytes() -> None:
    blobs = [Blob(".rodata", "a", bytes(1000))]
    assert data_object("aarch64", blobs) == data_object("aarch64", blobs)
