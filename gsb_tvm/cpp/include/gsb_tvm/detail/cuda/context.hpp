// A GPU's context, and what of the driver's belongs to somebody.
#ifndef GSB_TVM_DETAIL_CUDA_CONTEXT_HPP_
#define GSB_TVM_DETAIL_CUDA_CONTEXT_HPP_

#include <new>
#include <string>
#include <utility>

#include "../../error.hpp"
#include "abi.hpp"
#include "driver.hpp"

namespace gsb_tvm::detail::cuda {

// A GPU's primary context, which is that of CUDA's runtime and of PyTorch, too.
class PrimaryContext {
 public:
  // Throws Error where there is no driver or no such GPU.
  explicit PrimaryContext(int ordinal) {
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
    driver()(driver().device, &device_, ordinal);
    driver()(driver().retain, &context_, device_);
  }
  PrimaryContext(const PrimaryContext&) = delete;
  PrimaryContext& operator=(const PrimaryContext&) = delete;
  ~PrimaryContext() { driver().release.result(device_); }

  DeviceNumber device() const noexcept { return device_; }
  Context get() const noexcept { return context_; }

 private:
  DeviceNumber device_ = 0;
  Context context_ = nullptr;
};

// The calling thread in a GPU's context; it gets back the one that it had. What is done meanwhile
// may be what breaks the recording of a stream elsewhere: it is no part of one.
class Current {
 public:
  // Throws Error.
  explicit Current(Context context) {
    driver()(driver().current, &context_before_);
    driver()(driver().set_current, context);
    driver().exchange_capture_mode.result(&mode_);
  }
  // Where that fails, so do the calls that follow.
  Current(Context context, std::nothrow_t) noexcept {
    driver().current.result(&context_before_);
    driver().set_current.result(context);
    driver().exchange_capture_mode.result(&mode_);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
  ~Current() {
    driver().exchange_capture_mode.result(&mode_);
    driver().set_current.result(context_before_);
  }

 private:
  Context context_before_ = nullptr;
  int mode_ = relaxed_capture;  // then what it was before
};

// What a function of the driver made, and another one ends.
template <class Handle>
class Owned {
 public:
  Owned() noexcept = default;
  // The context must outlive it.
  Owned(Context context, Handle handle, const Call<Handle>& end) noexcept
      : context_(context), end_(&end), handle_(handle) {}
  Owned(Owned&& other) noexcept { swap(other); }
  Owned& operator=(Owned&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Owned() {
    if (!end_) return;
    const Current current(context_, std::nothrow);
    end_->result(handle_);
  }

  Handle get() const noexcept { return handle_; }

 private:
  void swap(Owned& other) noexcept {
    std::swap(context_, other.context_);
    std::swap(end_, other.end_);
    std::swap(handle_, other.handle_);
  }

  Context context_ = nullptr;
  const Call<Handle>* end_ = nullptr;
  Handle handle_ = {};
};

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_CONTEXT_HPP_
