// A GPU and its memory.
#ifndef GSB_TVM_DETAIL_CUDA_DEVICE_HPP_
#define GSB_TVM_DETAIL_CUDA_DEVICE_HPP_

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "../../error.hpp"
#include "../descriptor.hpp"
#include "context.hpp"
#include "driver.hpp"

namespace gsb_tvm::detail::cuda {

using Memory = Owned<Address>;

class Device {
 public:
  // Throws Error where there is no driver or no such GPU.
  explicit Device(int ordinal) : ordinal_(ordinal), primary_(ordinal), side_(stream(context())) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int ordinal() const noexcept { return ordinal_; }
  Context context() const noexcept { return primary_.get(); }

  Capability capability() const {
    Capability made;
    driver()(driver().attribute, &made.first, capability_major, primary_.device());
    driver()(driver().attribute, &made.second, capability_minor, primary_.device());
    return made;
  }

  // Memory of zeros, in this GPU's context. Throws Error.
  Memory allocated(std::size_t bytes) const {
    Address made = 0;
    bytes = std::max(bytes, std::size_t{1});
    if (driver().allocate.result(&made, bytes) == out_of_memory)
      throw Error(ErrorCode::memory, "GPU " + std::to_string(ordinal_) + " does not give " +
                                         std::to_string(bytes) +
                                         " bytes of memory: CUDA_ERROR_OUT_OF_MEMORY. Run a "
                                         "smaller batch, or end what else uses the GPU.");
    Memory memory(context(), made, driver().free);
    driver()(driver().fill, made, 0, bytes, side_.get());
    driver()(driver().synchronize, side_.get());
    return memory;
  }

  // The same with the bytes of `data`.
  Memory uploaded(const void* data, std::size_t bytes) const {
    Memory memory = allocated(bytes);
    driver()(driver().upload, memory.get(), data, bytes, side_.get());
    driver()(driver().synchronize, side_.get());
    return memory;
  }

 private:
  // Not the default stream, which waits for others and breaks their recording.
  static Owned<Stream> stream(Context context) {
    const Current current(context);
    Stream made = nullptr;
    driver()(driver().make_stream, &made, non_blocking);
    return Owned<Stream>(context, made, driver().destroy_stream);
  }

  int ordinal_;
  PrimaryContext primary_;
  Owned<Stream> side_;
};

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_DEVICE_HPP_
