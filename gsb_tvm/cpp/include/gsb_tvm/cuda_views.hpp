// What a call on a GPU reads and writes: memory of the GPU as it is, or of the host by copies.
#ifndef GSB_TVM_CUDA_VIEWS_HPP_
#define GSB_TVM_CUDA_VIEWS_HPP_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "dtype.hpp"
#include "views.hpp"

namespace gsb_tvm {

/// A dense tensor in C order in a GPU's memory, to read where it is.
///
/// Alive until the stream of the call has done what was put into it.
class DeviceInput {
 public:
  DeviceInput(const void* data, Dtype dtype, std::vector<std::int64_t> shape)
      : data_(data), dtype_(dtype), shape_(std::move(shape)) {}
  template <class T, class = std::enable_if_t<!std::is_void_v<T>>>
  DeviceInput(const T* data, std::vector<std::int64_t> shape)
      : DeviceInput(data, dtype_of<T>(), std::move(shape)) {}
  /// At the address of a CUdeviceptr.
  DeviceInput(std::uint64_t address, Dtype dtype, std::vector<std::int64_t> shape)
      : DeviceInput(reinterpret_cast<const void*>(static_cast<std::uintptr_t>(address)), dtype,
                    std::move(shape)) {}

  const void* data() const noexcept { return data_; }
  Dtype dtype() const noexcept { return dtype_; }
  const std::vector<std::int64_t>& shape() const noexcept { return shape_; }

 private:
  const void* data_;
  Dtype dtype_;
  std::vector<std::int64_t> shape_;
};

/// A tensor in a GPU's memory that may be written, too.
class DeviceOutput : public DeviceInput {
 public:
  DeviceOutput(void* data, Dtype dtype, std::vector<std::int64_t> shape)
      : DeviceInput(data, dtype, std::move(shape)) {}
  template <class T, class = detail::IfWritable<T>, class = std::enable_if_t<!std::is_void_v<T>>>
  DeviceOutput(T* data, std::vector<std::int64_t> shape) : DeviceInput(data, std::move(shape)) {}
  DeviceOutput(std::uint64_t address, Dtype dtype, std::vector<std::int64_t> shape)
      : DeviceInput(address, dtype, std::move(shape)) {}

  void* data() const noexcept { return const_cast<void*>(DeviceInput::data()); }  // given as such
};

/// What CudaSession reads: a DeviceInput, or whatever gsb_tvm::Input takes.
class CudaInput {
 public:
  CudaInput(DeviceInput tensor) : on_device_(std::move(tensor)) {}
  template <class Host, class = std::enable_if_t<std::is_constructible_v<Input, const Host&>>>
  CudaInput(const Host& host) noexcept : on_host_(host) {}
  template <class T>
  CudaInput(const T* data, std::size_t count) noexcept : on_host_(Input(data, count)) {}

  /// Null where the tensor is the host's.
  const DeviceInput* on_device() const noexcept { return on_device_ ? &*on_device_ : nullptr; }
  const Input& on_host() const noexcept { return *on_host_; }

 private:
  std::optional<DeviceInput> on_device_;
  std::optional<Input> on_host_;
};

/// What CudaSession writes: a DeviceOutput, or whatever gsb_tvm::Output takes.
class CudaOutput {
 public:
  CudaOutput(DeviceOutput tensor) : on_device_(std::move(tensor)) {}
  template <class Host, class = std::enable_if_t<std::is_constructible_v<Output, Host&&>>>
  CudaOutput(Host&& host) noexcept : on_host_(std::forward<Host>(host)) {}
  template <class T, class = detail::IfWritable<T>>
  CudaOutput(T* data, std::size_t count) noexcept : on_host_(Output(data, count)) {}

  /// Null where the tensor is the host's.
  const DeviceOutput* on_device() const noexcept { return on_device_ ? &*on_device_ : nullptr; }
  const Output& on_host() const noexcept { return *on_host_; }

 private:
  std::optional<DeviceOutput> on_device_;
  std::optional<Output> on_host_;
};

}  // namespace gsb_tvm

#endif  // GSB_TVM_CUDA_VIEWS_HPP_
