// Tensors: what a model says of its own, and ones that own their memory.
#ifndef GSB_TVM_TENSOR_HPP_
#define GSB_TVM_TENSOR_HPP_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dtype.hpp"
#include "error.hpp"
#include "views.hpp"

namespace gsb_tvm {

/// An input or output of a model; of a single image where calls may have any batch.
struct TensorInfo {
  std::string name;
  Dtype dtype;
  std::vector<std::int64_t> shape;
  std::size_t count;  // elements

  std::size_t size_bytes() const noexcept { return count * size_of(dtype); }
};

namespace detail {

// All that a process can address; what is larger cannot be.
inline constexpr std::uint64_t most_bytes = std::uint64_t{1} << 47;

// Elements of a tensor without negative extents; none where it is too large.
inline std::optional<std::size_t> count_of(Dtype dtype, const std::vector<std::int64_t>& shape) {
  std::uint64_t bytes = size_of(dtype);
  for (const std::int64_t extent : shape)
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes))
      return std::nullopt;
  if (bytes > most_bytes) return std::nullopt;
  return static_cast<std::size_t>(bytes / size_of(dtype));
}

// Bytes of a tensor that somebody asks for. Throws Error where there is no such tensor.
inline std::size_t bytes_of(Dtype dtype, const std::vector<std::int64_t>& shape) {
  for (const std::int64_t extent : shape)
    if (extent < 0)
      throw Error(ErrorCode::argument,
                  "an extent of " + std::to_string(extent) + " is asked for, expected 0 or more.");
  const std::optional<std::size_t> count = count_of(dtype, shape);
  if (!count)
    throw Error(ErrorCode::argument,
                "a tensor is asked for that is larger than all that a process can address.");
  return *count * size_of(dtype);
}

}  // namespace detail

/// A dense tensor in C order, with memory of its own; zeros at first.
class Tensor {
 public:
  /// Throws Error where there is no such tensor.
  Tensor(Dtype dtype, std::vector<std::int64_t> shape)
      : dtype_(dtype), shape_(std::move(shape)), bytes_(detail::bytes_of(dtype_, shape_)) {}

  Dtype dtype() const noexcept { return dtype_; }
  const std::vector<std::int64_t>& shape() const noexcept { return shape_; }
  std::size_t count() const noexcept { return bytes_.size() / size_of(dtype_); }

  /// The elements. Throws Error where T may not stand for the dtype.
  template <class T>
  T* data() {
    check<T>();
    return reinterpret_cast<T*>(bytes_.data());
  }
  template <class T>
  const T* data() const {
    check<T>();
    return reinterpret_cast<const T*>(bytes_.data());
  }

  operator Input() const noexcept { return Input(bytes_.data(), bytes_.size(), dtype_); }
  operator Output() noexcept { return Output(bytes_.data(), bytes_.size(), dtype_); }

 private:
  template <class T>
  void check() const {
    if (!stands_for(dtype_of<T>(), dtype_))
      throw Error(ErrorCode::argument, std::string("a tensor of ") + name(dtype_) + " is read as " +
                                           name(dtype_of<T>()) + ".");
  }

  Dtype dtype_;
  std::vector<std::int64_t> shape_;
  std::vector<unsigned char> bytes_;  // its allocator aligns for every element type
};

}  // namespace gsb_tvm

#endif  // GSB_TVM_TENSOR_HPP_
