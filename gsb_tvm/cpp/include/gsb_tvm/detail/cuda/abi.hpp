// Types, structs and numbers of NVIDIA's driver, declared here so that no toolkit is needed to build
// a program. Source: cuda.h of CUDA 12 and 13, which agree on them. No name is one that cuda.h
// defines, by a macro or otherwise, so that a program may include it, too.
#ifndef GSB_TVM_DETAIL_CUDA_ABI_HPP_
#define GSB_TVM_DETAIL_CUDA_ABI_HPP_

#include <cstddef>
#include <cstdint>

// The same as in cuda.h and cuda_runtime.h: a CUstream or a cudaStream_t is a pointer to it.
struct CUstream_st;

namespace gsb_tvm::detail::cuda {

using Result = int;                        // CUresult
using DeviceNumber = int;                  // CUdevice
using Address = unsigned long long;        // CUdeviceptr
using Stream = CUstream_st*;               // CUstream
using Context = struct ContextTag*;        // CUcontext
using Event = struct EventTag*;            // CUevent
using Module = struct ModuleTag*;          // CUmodule
using Function = struct FunctionTag*;      // CUfunction
using Graph = struct GraphTag*;            // CUgraph
using GraphNode = struct GraphNodeTag*;    // CUgraphNode
using Executable = struct ExecutableTag*;  // CUgraphExec

inline constexpr Result success = 0;           // CUDA_SUCCESS
inline constexpr Result out_of_memory = 2;     // CUDA_ERROR_OUT_OF_MEMORY
inline constexpr int capability_major = 75;    // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
inline constexpr int capability_minor = 76;    // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
inline constexpr int pointer_ordinal = 9;      // CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
inline constexpr int device_memory = 2;        // CU_MEMORYTYPE_DEVICE
inline constexpr int captures_nothing = 0;     // CU_STREAM_CAPTURE_STATUS_NONE
inline constexpr int relaxed_capture = 2;      // CU_STREAM_CAPTURE_MODE_RELAXED
inline constexpr unsigned non_blocking = 1;    // CU_STREAM_NON_BLOCKING
inline constexpr unsigned without_timing = 2;  // CU_EVENT_DISABLE_TIMING

// CU_STREAM_PER_THREAD: one handle, and in each thread another stream.
inline Stream stream_of_thread() noexcept { return reinterpret_cast<Stream>(std::uintptr_t{2}); }

inline Address address(const void* pointer) noexcept {
  return static_cast<Address>(reinterpret_cast<std::uintptr_t>(pointer));
}
inline void* pointer(Address address) noexcept {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
}

// CUDA_KERNEL_NODE_PARAMS_v2
struct KernelNode {
  Function function;
  unsigned grid[3], block[3];
  unsigned shared_bytes;
  void** parameters;
  void** extra;
  void* kernel;
  Context context;
};
static_assert(sizeof(KernelNode) == 72 && offsetof(KernelNode, parameters) == 40,
              "as the driver reads it");

// CUDA_MEMCPY3D_v2
struct CopyNode {
  struct Side {
    std::size_t x_bytes, y, z, level;
    int memory_type;
    const void* host;
    Address device;
    void* array;
    void* reserved;
    std::size_t pitch, height;
  };
  Side source, target;
  std::size_t width_bytes, height, depth;
};
static_assert(sizeof(CopyNode) == 200 && offsetof(CopyNode, target) == 88 &&
                  offsetof(CopyNode::Side, device) == 48,
              "as the driver reads it");

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_ABI_HPP_
