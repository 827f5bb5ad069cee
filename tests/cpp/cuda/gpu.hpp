// The rest of a program around gsb_tvm::CudaSession: memory and streams of its own, by NVIDIA's
// driver, and what the stand-in for it counts (tests/libcuda).
#pragma once
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../promising.hpp"

struct CUstream_st;

namespace gpu {

using Address = unsigned long long;
using Handle = void*;
using Stream = CUstream_st*;

inline Stream stream_of_thread() { return reinterpret_cast<Stream>(std::uintptr_t{2}); }

inline void* driver() {
  static void* const opened = dlopen("libcuda.so.1", RTLD_NOW);
  CHECK(opened);
  return opened;
}

// A function of the driver, which must not fail; the types of the arguments are its own.
template <class... Arguments>
void cuda(const char* name, Arguments... arguments) {
  using Function = int (*)(Arguments...);
  const auto function = reinterpret_cast<Function>(dlsym(driver(), name));
  CHECK(function);
  const int result = function(arguments...);
  if (result) std::fprintf(stderr, "%s: %d\n", name, result);
  CHECK(result == 0);
}

inline std::size_t count(const char* what) {
  using Function = std::size_t (*)(const char*);
  return reinterpret_cast<Function>(dlsym(driver(), "stand_in_count"))(what);
}

// What a program does that uses the GPU: its primary context, as CUDA's runtime has it.
inline void use(int ordinal) {
  int device = 0;
  Handle context = nullptr;
  cuda("cuInit", 0u);
  cuda("cuDeviceGet", &device, ordinal);
  cuda("cuDevicePrimaryCtxRetain", &context, device);
  cuda("cuCtxSetCurrent", context);
}

inline void stop_using(int ordinal) {
  int device = 0;
  cuda("cuDeviceGet", &device, ordinal);
  cuda("cuCtxSetCurrent", Handle{});
  cuda("cuDevicePrimaryCtxRelease_v2", device);
}

inline Handle context() {
  Handle found = nullptr;
  cuda("cuCtxGetCurrent", &found);
  return found;
}

inline void synchronize(Stream stream) { cuda("cuStreamSynchronize", stream); }

constexpr unsigned blocking = 0, non_blocking = 1;  // CU_STREAM_DEFAULT, CU_STREAM_NON_BLOCKING

class OwnStream {
 public:
  explicit OwnStream(unsigned flags = non_blocking) { cuda("cuStreamCreate", &stream_, flags); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  ~OwnStream() { cuda("cuStreamDestroy_v2", stream_); }
  operator Stream() const { return stream_; }

 private:
  Stream stream_ = nullptr;
};

// Floats on the GPU.
class Floats {
 public:
  explicit Floats(std::size_t count) : count_(count) {
    cuda("cuMemAlloc_v2", &address_, count * sizeof(float));
  }
  explicit Floats(const std::vector<float>& values) : Floats(values.size()) { write(values); }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  ~Floats() { cuda("cuMemFree_v2", address_); }

  Address address() const { return address_; }
  float* data() const { return reinterpret_cast<float*>(static_cast<std::uintptr_t>(address_)); }

  void write(const std::vector<float>& values) {
    const void* const source = values.data();
    cuda("cuMemcpyHtoD_v2", address_, source, count_ * sizeof(float));
  }
  std::vector<float> read() const {
    std::vector<float> values(count_);
    void* const target = values.data();
    cuda("cuMemcpyDtoH_v2", target, address_, count_ * sizeof(float));
    return values;
  }

 private:
  std::size_t count_;
  Address address_ = 0;
};

// What was put into a stream while this lived, as a graph.
class Recording {
 public:
  explicit Recording(Stream stream) : stream_(stream) {
    cuda("cuStreamBeginCapture_v2", stream, 0);  // CU_STREAM_CAPTURE_MODE_GLOBAL
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() {
    if (executable_) cuda("cuGraphExecDestroy", executable_);
    if (graph_) cuda("cuGraphDestroy", graph_);
  }

  void end() {
    cuda("cuStreamEndCapture", stream_, &graph_);
    cuda("cuGraphInstantiateWithFlags", &executable_, graph_, 0ull);
  }
  void launch(Stream stream) const { cuda("cuGraphLaunch", executable_, stream); }

 private:
  Stream stream_;
  Handle graph_ = nullptr, executable_ = nullptr;
};

}  // namespace gpu
