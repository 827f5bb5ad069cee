// Checking an artefact, before any of its code is loaded. The order is that of
// gsb_tvm/runtime/session.py, and so are the sentences.
#ifndef GSB_TVM_DETAIL_ARTEFACT_HPP_
#define GSB_TVM_DETAIL_ARTEFACT_HPP_

#include <elf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <system_error>
#include <vector>

#include "../cpu.h"
#include "../version.hpp"
#include "crc32.hpp"
#include "descriptor.hpp"
#include "elf.hpp"
#include "file.hpp"

namespace gsb_tvm::detail {

inline constexpr const char* metadata_symbol = "gsb_tvm_metadata";

// What the section begins with: gsb_tvm/runtime/metadata.py. The JSON and the descriptor follow.
struct SectionHeader {
  char magic[8];
  std::uint32_t format;
  std::uint32_t checksum;  // of the whole file with this field zero; 0 where never computed
  std::uint64_t json_bytes;
  std::uint64_t descriptor_bytes;
};
static_assert(sizeof(SectionHeader) == 32, "as it stands in the file");

struct Artefact {
  Descriptor descriptor;
  SectionHeader header;
  std::uint16_t machine;  // of the library: e_machine
};

#if defined(__x86_64__)
inline constexpr std::uint16_t this_machine = EM_X86_64;
inline constexpr const char* this_arch = "x86_64";
#else
inline constexpr std::uint16_t this_machine = EM_AARCH64;
inline constexpr const char* this_arch = "aarch64";
#endif

inline SectionHeader read_section_header(const File& file, const Section& section) {
  SectionHeader header = {};
  const std::size_t start = offsetof(SectionHeader, checksum);  // the same in every format
  if (section.size >= start) file.read(&header, start, section.offset);
  const auto check = [&](bool is_good) {
    if (!is_good)
      file.fail(ErrorCode::damaged, "the section .gsb_tvm is damaged. Compile the model again.");
  };
  check(section.size >= start && std::memcmp(header.magic, "gsb-tvm", sizeof header.magic) == 0);
  if (header.format != GSB_TVM_ARTEFACT_FORMAT)
    file.fail(ErrorCode::version, "made in artefact format " + std::to_string(header.format) +
                                      ", expected " + std::to_string(GSB_TVM_ARTEFACT_FORMAT) +
                                      ". Compile the model again with gsb_tvm " GSB_TVM_VERSION
                                      ".");
  check(section.size >= sizeof header);
  file.read(&header, sizeof header, section.offset);
  const std::uint64_t room = section.size - sizeof header;
  check(header.json_bytes <= room && header.descriptor_bytes <= room - header.json_bytes);
  return header;
}

// The checksum of the file, with four bytes from `blank` on taken for zero.
inline std::uint32_t checksum(const File& file, std::uint64_t blank) {
  std::vector<unsigned char> piece(std::size_t{1} << 18);
  std::uint32_t crc = 0;
  for (std::uint64_t at = 0; at < file.size(); at += piece.size()) {
    const std::size_t size =
        static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), file.size() - at));
    file.read(piece.data(), size, at);
    for (std::uint64_t i = blank; i < blank + 4; ++i)
      if (i >= at && i - at < size) piece[static_cast<std::size_t>(i - at)] = 0;
    crc = crc32(crc, piece.data(), size);
  }
  return crc ? crc : 1;
}

inline void check_cpu(const File& file, const Descriptor& descriptor) {
  std::vector<gsb_cpu_feature> needed;
  bool uses_tiles = false;
  for (const Feature& feature : descriptor.features) {
    needed.push_back({feature.name.c_str(), feature.word, feature.bit, feature.xcr0});
    uses_tiles |= feature.name.compare(0, 4, "amx_") == 0;
  }
  if (const gsb_cpu_feature* lacks = gsb_cpu_missing(needed.data(), needed.size()))
    file.fail(ErrorCode::cpu, "made for " + descriptor.cpu + ", and this CPU lacks " + lacks->name +
                                  ". Compile the model for an older CPU.");
  const int refused = uses_tiles ? gsb_cpu_allow_tiles() : 0;
  if (refused)
    file.fail(ErrorCode::cpu, "made for " + descriptor.cpu +
                                  " with AMX, which Linux refuses this process (" +
                                  std::generic_category().message(refused) +
                                  "). Allow it arch_prctl(ARCH_REQ_XCOMP_PERM), or compile the "
                                  "model with -mattr=-amx-int8,-amx-tile.");
}

// Read an artefact, and check that it is whole. Throws Error.
inline Artefact read_artefact(const File& file) {
  const Section section = find_section(file, ".gsb_tvm");
  const SectionHeader header = read_section_header(file, section);
  if (header.checksum &&
      header.checksum != checksum(file, section.offset + offsetof(SectionHeader, checksum)))
    file.fail(ErrorCode::damaged,
              "the file was changed after it was written (its checksum does not match). Copy it "
              "again or compile the model again.");
  std::string text(static_cast<std::size_t>(header.descriptor_bytes), '\0');
  file.read(&text[0], text.size(), section.offset + sizeof header + header.json_bytes);
  return {read_descriptor(text, file.path()), header, section.machine};
}

// Read an artefact for a CPU, and check that this one can execute it. Throws Error.
inline Artefact read_cpu_artefact(const File& file) {
  Artefact made = read_artefact(file);
  const Descriptor& descriptor = made.descriptor;
  if (!descriptor.gpu.empty())
    file.fail(ErrorCode::architecture,
              "made for a GPU (" + descriptor.gpu +
                  "), and this loads code for CPUs. Load it with gsb_tvm::CudaSession, or compile "
                  "the model for a CPU.");
  if (made.machine != this_machine || descriptor.arch != this_arch)
    file.fail(ErrorCode::architecture,
              "made for " + descriptor.arch + ", this machine is " + this_arch +
                  ". Copy it to such a machine, or compile the model for " + this_arch + ".");
  check_cpu(file, descriptor);
  return made;
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_ARTEFACT_HPP_
