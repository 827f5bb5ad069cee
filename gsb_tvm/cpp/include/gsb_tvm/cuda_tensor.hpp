// Tensors that own memory of a GPU.
#ifndef GSB_TVM_CUDA_TENSOR_HPP_
#define GSB_TVM_CUDA_TENSOR_HPP_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda_views.hpp"
#include "detail/checks.hpp"
#include "detail/cuda/device.hpp"
#include "dtype.hpp"
#include "error.hpp"
#include "tensor.hpp"
#include "views.hpp"

namespace gsb_tvm {

/// A dense tensor in C order in a GPU's memory; zeros at first. Made by CudaSession::tensor, which
/// it may outlive.
class CudaTensor {
 public:
  Dtype dtype() const noexcept { return dtype_; }
  const std::vector<std::int64_t>& shape() const noexcept { return shape_; }
  std::size_t size_bytes() const noexcept { return size_bytes_; }
  std::size_t count() const noexcept { return size_bytes_ / size_of(dtype_); }

  /// Where it is on the GPU.
  void* data() { return detail::cuda::pointer(held().memory.get()); }
  const void* data() const { return detail::cuda::pointer(held().memory.get()); }

  operator CudaInput() const { return DeviceInput(data(), dtype_, shape_); }
  operator CudaOutput() { return DeviceOutput(data(), dtype_, shape_); }

  /// Take the elements of a tensor of the host, behind what a stream does before; waits for it.
  /// Throws Error.
  void upload(const Input& values, CUstream_st* stream = nullptr) {
    check(values);
    const Address at = held().memory.get();
    const detail::cuda::Current current(held().device->context());
    if (size_bytes_) driver()(driver().upload, at, values.data(), size_bytes_, stream);
    driver()(driver().synchronize, stream);
  }

  /// Give the elements to a tensor of the host, behind what a stream does before; waits for it.
  /// Throws Error.
  void download(const Output& values, CUstream_st* stream = nullptr) const {
    check(values.view());
    const Address at = held().memory.get();
    const detail::cuda::Current current(held().device->context());
    if (size_bytes_) driver()(driver().download, values.data(), at, size_bytes_, stream);
    driver()(driver().synchronize, stream);
  }

 private:
  friend class CudaSession;
  using Address = detail::cuda::Address;

  // The memory ends before its GPU.
  struct Held {
    std::shared_ptr<const detail::cuda::Device> device;
    detail::cuda::Memory memory;
  };

  CudaTensor(std::shared_ptr<const detail::cuda::Device> device, Dtype dtype,
             std::vector<std::int64_t> shape)
      : dtype_(dtype), shape_(std::move(shape)), size_bytes_(detail::bytes_of(dtype_, shape_)) {
    const detail::cuda::Current current(device->context());
    detail::cuda::Memory memory = device->allocated(size_bytes_);
    held_ = std::make_unique<Held>(Held{std::move(device), std::move(memory)});
  }

  const Held& held() const {
    if (!held_) throw Error(ErrorCode::argument, "the tensor was moved to another one.");
    return *held_;
  }

  static const detail::cuda::Driver& driver() { return detail::cuda::driver(); }

  // A view of as many elements, of the same type.
  void check(const Input& view) const {
    if (!view.stands_for(dtype_))
      detail::refuse(std::string("elements of ") + name(view.dtype()) +
                     " are given for a tensor of " + name(dtype_) + ".");
    if (view.size_bytes() != size_bytes_)
      detail::refuse(std::to_string(view.size_bytes()) + " bytes are given for a tensor of " +
                     std::to_string(size_bytes_) + ".");
    if (size_bytes_ && !view.data()) detail::refuse("the data is null.");
  }

  Dtype dtype_;
  std::vector<std::int64_t> shape_;
  std::size_t size_bytes_;
  std::unique_ptr<Held> held_;
};

}  // namespace gsb_tvm

#endif  // GSB_TVM_CUDA_TENSOR_HPP_
