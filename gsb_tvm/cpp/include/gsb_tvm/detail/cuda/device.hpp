// A GPU, and what of it belongs to somebody.
#ifndef GSB_TVM_DETAIL_CUDA_DEVICE_HPP_
#define GSB_TVM_DETAIL_CUDA_DEVICE_HPP_

#include <algorithm>
#include <cstddef>
#include <new>
#include <string>
#include <utility>

#include "../../error.hpp"
#include "../descriptor.hpp"
#include "driver.hpp"

namespace gsb_tvm::detail::cuda {

// A GPU with its primary context, which is that of CUDA's runtime and of PyTorch, too.
class Device {
 public:
  // Throws Error where there is no driver or no such GPU.
  explicit Device(int ordinal) : ordinal_(ordinal) {
    int count = 0;
    Result result = driver().init.result(0);
    if (result == success) result = driver().device_count.result(&count);
    if (result != success)
      throw Error(ErrorCode::gpu, "a GPU is needed, and there is none to use (" +
                                      driver().name_of(result) + ").");
    if (ordinal < 0 || ordinal >= count)
      throw Error(ErrorCode::gpu, "there is no GPU " + std::to_string(ordinal) +
                                      ": this machine has " + std::to_string(count) +
                                      ", from 0 on.");
    driver()(driver().device, &number_, ordinal);
    driver()(driver().retain, &context_, number_);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { driver().release.result(number_); }

  int ordinal() const noexcept { return ordinal_; }
  Context context() const noexcept { return context_; }

  Capability capability() const {
    Capability made;
    driver()(driver().attribute, &made.first, capability_major, number_);
    driver()(driver().attribute, &made.second, capability_minor, number_);
    return made;
  }

 private:
  int ordinal_;
  DeviceNumber number_ = 0;
  Context context_ = nullptr;
};

// Makes a GPU the calling thread's, and gives it back the one that it had.
class Current {
 public:
  // Throws Error.
  explicit Current(const Device& device) {
    driver()(driver().current, &before_);
    driver()(driver().set_current, device.context());
  }
  // Where that fails, so do the calls that follow.
  Current(const Device& device, std::nothrow_t) noexcept {
    driver().current.result(&before_);
    driver().set_current.result(device.context());
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
  ~Current() { driver().set_current.result(before_); }

 private:
  Context before_ = nullptr;
};

// What a function of the driver made, and another one ends.
template <class Handle>
class Owned {
 public:
  Owned() noexcept = default;
  // `device` must outlive it.
  Owned(const Device& device, Handle handle, const Call<Handle>& end) noexcept
      : device_(&device), end_(&end), handle_(handle) {}
  Owned(Owned&& other) noexcept { swap(other); }
  Owned& operator=(Owned&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Owned() {
    if (!device_) return;
    const Current current(*device_, std::nothrow);
    end_->result(handle_);
  }

  Handle get() const noexcept { return handle_; }

 private:
  void swap(Owned& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(end_, other.end_);
    std::swap(handle_, other.handle_);
  }

  const Device* device_ = nullptr;
  const Call<Handle>* end_ = nullptr;
  Handle handle_ = {};
};

using Memory = Owned<Address>;

// Memory of zeros on the GPU, which is the calling thread's. Throws Error.
inline Memory allocated(const Device& device, std::size_t bytes) {
  Address made = 0;
  bytes = std::max(bytes, std::size_t{1});
  if (driver().allocate.result(&made, bytes) == out_of_memory)
    throw Error(ErrorCode::memory, "GPU " + std::to_string(device.ordinal()) + " does not give " +
                                       std::to_string(bytes) +
                                       " bytes of memory (CUDA_ERROR_OUT_OF_MEMORY).");
  Memory memory(device, made, driver().free);
  driver()(driver().fill, made, 0, bytes);
  driver()(driver().synchronize, nullptr);
  return memory;
}

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_DEVICE_HPP_
