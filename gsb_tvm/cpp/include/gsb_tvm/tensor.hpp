// Tensors: what a model says of its own, and ones that own their memory.
#ifndef GSB_TVM_TENSOR_HPP_
#define GSB_TVM_TENSOR_HPP_

#include <cstddef>
#include <cstdint>
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

/// A dense tensor in C order, with memory of its own; zeros at first.
class Tensor {
 public:
  Tensor(Dtype dtype, std::vector<std::int64_t> shape)
      : dtype_(dtype), shape_(std::move(shape)), bytes_(count_of(shape_) * size_of(dtype)) {}

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
  static std::size_t count_of(const std::vector<std::int64_t>& shape) {
    std::size_t count = 1;
    for (const std::int64_t extent : shape) {
      if (extent < 0)
        throw Error(ErrorCode::argument, "an extent of " + std::to_string(extent) +
                                             " is asked for, expected 0 or more.");
      count *= static_cast<std::size_t>(extent);
    }
    return count;
  }

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
