// Finding a section in an ELF file that may be damaged. As gsb_tvm/runtime/sections.py, with its
// sentences. Source: System V ABI, "Object Files".
#ifndef GSB_TVM_DETAIL_ELF_HPP_
#define GSB_TVM_DETAIL_ELF_HPP_

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "file.hpp"

namespace gsb_tvm::detail {

struct Section {
  std::uint64_t offset;
  std::uint64_t size;
  std::uint16_t machine;  // of the whole file: e_machine
};

inline constexpr const char* way_out = "Give the .so that gsb-tvm compile wrote.";

inline Elf64_Ehdr read_elf_header(const File& file) {
  Elf64_Ehdr header;
  const std::uint64_t size = file.size();
  if (size >= SELFMAG) file.read(&header, SELFMAG, 0);
  if (size < SELFMAG || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    file.fail(ErrorCode::file, std::string("not a shared library (no ELF header). ") + way_out);
  if (size >= sizeof header) file.read(&header, sizeof header, 0);
  if (size < sizeof header || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_ident[EI_DATA] != ELFDATA2LSB)
    file.fail(ErrorCode::damaged,
              std::string("cut off, or not a 64-bit little-endian library. ") + way_out);
  return header;
}

inline std::vector<Elf64_Shdr> read_section_headers(const File& file, const Elf64_Ehdr& header) {
  const std::uint64_t bytes = std::uint64_t{header.e_shentsize} * header.e_shnum;
  // The table is the last thing in the file: a file cut anywhere lacks a part of it.
  if (header.e_shoff > file.size() || bytes > file.size() - header.e_shoff)
    file.fail(ErrorCode::damaged, "cut off, " + std::to_string(file.size()) +
                                      " bytes are left of at least " +
                                      std::to_string(header.e_shoff + bytes) +
                                      ". Copy it again or compile the model again.");
  if (header.e_shnum &&
      (header.e_shentsize != sizeof(Elf64_Shdr) || header.e_shstrndx >= header.e_shnum))
    file.fail(ErrorCode::damaged, "a damaged library (its table of sections makes no sense).");
  std::vector<Elf64_Shdr> table(header.e_shnum);
  file.read(table.data(), table.size() * sizeof(Elf64_Shdr), header.e_shoff);
  return table;
}

// Whether the file holds `size` bytes from `offset` on.
inline bool holds(const File& file, std::uint64_t offset, std::uint64_t size) noexcept {
  return offset <= file.size() && size <= file.size() - offset;
}

inline Section find_section(const File& file, const std::string& name) {
  const Elf64_Ehdr header = read_elf_header(file);
  const std::vector<Elf64_Shdr> table = read_section_headers(file, header);
  std::vector<char> found(name.size() + 1);
  for (const Elf64_Shdr& entry : table) {
    const std::uint64_t at = table[header.e_shstrndx].sh_offset + entry.sh_name;
    if (!holds(file, at, found.size()) || !holds(file, entry.sh_offset, entry.sh_size)) continue;
    file.read(found.data(), found.size(), at);
    if (std::memcmp(found.data(), name.c_str(), found.size()) == 0)
      return {entry.sh_offset, entry.sh_size, header.e_machine};
  }
  file.fail(ErrorCode::file, "not made by gsb_tvm (no section " + name + "). " + way_out);
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_ELF_HPP_
