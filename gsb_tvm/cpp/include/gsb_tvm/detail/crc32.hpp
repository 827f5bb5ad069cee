// CRC-32 as zlib has it (ISO 3309): reflected, polynomial 0xEDB88320.
#ifndef GSB_TVM_DETAIL_CRC32_HPP_
#define GSB_TVM_DETAIL_CRC32_HPP_

#include <array>
#include <cstddef>
#include <cstdint>

namespace gsb_tvm::detail {

using CrcTables = std::array<std::array<std::uint32_t, 256>, 8>;

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

// The checksum of some bytes and more behind them; 0 for none yet. Eight bytes a step, which is
// four times as fast as one (Kounavis and Berry, "A systematic approach to building high
// performance, software-based, CRC generators", 2005).
inline std::uint32_t crc32(std::uint32_t crc, const unsigned char* data,
                           std::size_t size) noexcept {
  crc = ~crc;
  for (; size >= 8; data += 8, size -= 8) {
    for (std::size_t i = 0; i < 4; ++i) crc ^= static_cast<std::uint32_t>(data[i]) << 8 * i;
    std::uint32_t next = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      next ^= crc_tables[7 - i][crc >> 8 * i & 0xff];
      next ^= crc_tables[3 - i][data[4 + i]];
    }
    crc = next;
  }
  for (; size > 0; ++data, --size) crc = crc >> 8 ^ crc_tables[0][(crc ^ *data) & 0xff];
  return ~crc;
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_CRC32_HPP_
