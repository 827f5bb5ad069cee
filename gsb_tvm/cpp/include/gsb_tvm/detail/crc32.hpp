// CRC-32 as zlib has it (ISO 3309): reflected, polynomial 0xEDB88320.
#ifndef GSB_TVM_DETAIL_CRC32_HPP_
#define GSB_TVM_DETAIL_CRC32_HPP_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace gsb_tvm::detail {

using CrcTables = std::array<std::array<std::uint32_t, 256>, 16>;

constexpr CrcTables make_crc_tables() noexcept {
  CrcTables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0u);
    tables[0][byte] = crc;
  }
  for (std::size_t ahead = 1; ahead < tables.size(); ++ahead)
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t crc = tables[ahead - 1][byte];
      tables[ahead][byte] = crc >> 8 ^ tables[0][crc & 0xff];
    }
  return tables;
}

inline constexpr CrcTables crc_tables = make_crc_tables();

// What four bytes, `ahead` bytes before the end of a step, add to the checksum.
inline std::uint32_t crc_of_word(std::uint32_t word, std::size_t ahead) noexcept {
  return crc_tables[ahead + 3][word & 0xff] ^ crc_tables[ahead + 2][word >> 8 & 0xff] ^
         crc_tables[ahead + 1][word >> 16 & 0xff] ^ crc_tables[ahead][word >> 24];
}

// The checksum of some bytes and more behind them; 0 for none yet. Sixteen bytes a step, whose
// look-ups do not wait for each other (Kounavis and Berry, "A systematic approach to building high
// performance, software-based, CRC generators", 2005). Words are little-endian, as are both CPUs.
inline std::uint32_t crc32(std::uint32_t crc, const unsigned char* data,
                           std::size_t size) noexcept {
  crc = ~crc;
  for (; size >= 16; data += 16, size -= 16) {
    std::uint32_t words[4];
    std::memcpy(words, data, sizeof words);
    crc = crc_of_word(words[0] ^ crc, 12) ^ crc_of_word(words[1], 8) ^ crc_of_word(words[2], 4) ^
          crc_of_word(words[3], 0);
  }
  for (; size > 0; ++data, --size) crc = crc >> 8 ^ crc_tables[0][(crc ^ *data) & 0xff];
  return ~crc;
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_CRC32_HPP_
