// Types of a tensor's elements.
#ifndef GSB_TVM_DTYPE_HPP_
#define GSB_TVM_DTYPE_HPP_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

namespace gsb_tvm {

enum class Dtype : std::uint8_t {
  boolean,  // a byte, 0 or 1
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  float16,  // its bits, for which C++17 has std::uint16_t
  float32,
  float64,
};

namespace detail {

struct DtypeFacts {
  const char* name;  // as NumPy has it
  std::size_t size;
};

// In the order of Dtype.
inline constexpr std::array<DtypeFacts, 12> dtypes = {{
    {"bool", 1},
    {"int8", 1},
    {"int16", 2},
    {"int32", 4},
    {"int64", 8},
    {"uint8", 1},
    {"uint16", 2},
    {"uint32", 4},
    {"uint64", 8},
    {"float16", 2},
    {"float32", 4},
    {"float64", 8},
}};

inline constexpr const DtypeFacts& facts(Dtype dtype) noexcept {
  return dtypes[static_cast<std::size_t>(dtype)];
}

inline std::optional<Dtype> dtype_named(std::string_view name) noexcept {
  for (std::size_t i = 0; i < dtypes.size(); ++i)
    if (name == dtypes[i].name) return static_cast<Dtype>(i);
  return std::nullopt;
}

// Integers by their size, since `long` and `long long` may be the same; 0, 1, 2, 3 for 1 to 8
// bytes.
template <class T>
constexpr int size_step() noexcept {
  return sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
}

}  // namespace detail

/// As NumPy names it.
inline constexpr const char* name(Dtype dtype) noexcept { return detail::facts(dtype).name; }

/// Bytes of one element.
inline constexpr std::size_t size_of(Dtype dtype) noexcept { return detail::facts(dtype).size; }

/// The dtype of a C++ type: bool, an integer, float or double.
template <class T>
constexpr Dtype dtype_of() noexcept {
  using Plain = std::remove_cv_t<T>;
  static_assert(
      std::is_integral_v<Plain> || std::is_same_v<Plain, float> || std::is_same_v<Plain, double>,
      "a tensor holds bool, integers, float or double");
  if constexpr (std::is_same_v<Plain, bool>)
    return Dtype::boolean;
  else if constexpr (std::is_same_v<Plain, float>)
    return Dtype::float32;
  else if constexpr (std::is_same_v<Plain, double>)
    return Dtype::float64;
  else {
    constexpr Dtype first = std::is_signed_v<Plain> ? Dtype::int8 : Dtype::uint8;
    return static_cast<Dtype>(static_cast<int>(first) + detail::size_step<Plain>());
  }
}

/// Whether elements of dtype `given` may stand for a tensor of dtype `wanted`.
inline constexpr bool stands_for(Dtype given, Dtype wanted) noexcept {
  return given == wanted || (wanted == Dtype::boolean && given == Dtype::uint8) ||
         (wanted == Dtype::float16 && given == Dtype::uint16);
}

}  // namespace gsb_tvm

#endif  // GSB_TVM_DTYPE_HPP_
