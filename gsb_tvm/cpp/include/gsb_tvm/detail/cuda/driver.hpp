// NVIDIA's driver, loaded when the first session needs it.
#ifndef GSB_TVM_DETAIL_CUDA_DRIVER_HPP_
#define GSB_TVM_DETAIL_CUDA_DRIVER_HPP_

#include <dlfcn.h>

#include <cstddef>
#include <string>
#include <type_traits>

#include "../../error.hpp"
#include "abi.hpp"

namespace gsb_tvm::detail::cuda {

inline void* opened_driver() {
  void* const handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (handle) return handle;
  const char* const said = dlerror();
  throw Error(ErrorCode::gpu, std::string("a GPU is needed, and NVIDIA's driver is not here (") +
                                  (said ? said : "no reason is given") + ").");
}

// A function of the driver.
template <class... Arguments>
class Call {
 public:
  Call(void* driver, const char* name)
      : name_(name), function_(reinterpret_cast<Pointer>(dlsym(driver, name))) {
    if (!function_)
      throw Error(ErrorCode::gpu, std::string("NVIDIA's driver is too old: it has no ") + name +
                                      ", which came with CUDA 12. Install version 525 or later.");
  }

  const char* name() const noexcept { return name_; }
  Result result(Arguments... arguments) const noexcept { return function_(arguments...); }

 private:
  using Pointer = Result (*)(Arguments...);
  const char* name_;
  Pointer function_;
};

// The functions that sessions call, by the names that the driver exports: `_v2` is part of some.
class Driver {
  void* const library_ = opened_driver();

 public:
  const Call<unsigned> init{library_, "cuInit"};
  const Call<Result, const char**> error_name{library_, "cuGetErrorName"};

  const Call<int*> device_count{library_, "cuDeviceGetCount"};
  const Call<DeviceNumber*, int> device{library_, "cuDeviceGet"};
  const Call<int*, int, DeviceNumber> attribute{library_, "cuDeviceGetAttribute"};
  const Call<Context*, DeviceNumber> retain{library_, "cuDevicePrimaryCtxRetain"};
  const Call<DeviceNumber> release{library_, "cuDevicePrimaryCtxRelease_v2"};
  const Call<Context*> current{library_, "cuCtxGetCurrent"};
  const Call<Context> set_current{library_, "cuCtxSetCurrent"};

  const Call<Address*, std::size_t> allocate{library_, "cuMemAlloc_v2"};
  const Call<Address> free{library_, "cuMemFree_v2"};
  const Call<Address, unsigned char, std::size_t, Stream> fill{library_, "cuMemsetD8Async"};
  const Call<Address, const void*, std::size_t, Stream> upload{library_, "cuMemcpyHtoDAsync_v2"};
  const Call<void*, Address, std::size_t, Stream> download{library_, "cuMemcpyDtoHAsync_v2"};
  const Call<Address, Address, std::size_t, Stream> copy{library_, "cuMemcpyDtoDAsync_v2"};
  const Call<void*, int, Address> pointer_attribute{library_, "cuPointerGetAttribute"};

  const Call<Module*, const void*> load{library_, "cuModuleLoadData"};
  const Call<Module> unload{library_, "cuModuleUnload"};
  const Call<Function*, Module, const char*> function{library_, "cuModuleGetFunction"};
  const Call<Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream,
             void**, void**>
      launch{library_, "cuLaunchKernel"};

  const Call<Stream*, unsigned> make_stream{library_, "cuStreamCreate"};
  const Call<Stream> destroy_stream{library_, "cuStreamDestroy_v2"};
  const Call<Stream, int*> is_capturing{library_, "cuStreamIsCapturing"};
  const Call<int*> exchange_capture_mode{library_, "cuThreadExchangeStreamCaptureMode"};
  const Call<Stream> synchronize{library_, "cuStreamSynchronize"};
  const Call<Stream, Event, unsigned> wait_for{library_, "cuStreamWaitEvent"};
  const Call<Event*, unsigned> make_event{library_, "cuEventCreate"};
  const Call<Event, Stream> record{library_, "cuEventRecord"};
  const Call<Event> synchronize_event{library_, "cuEventSynchronize"};
  const Call<Event> destroy_event{library_, "cuEventDestroy_v2"};

  const Call<Graph*, unsigned> make_graph{library_, "cuGraphCreate"};
  const Call<Graph> destroy_graph{library_, "cuGraphDestroy"};
  const Call<GraphNode*, Graph, const GraphNode*, std::size_t, const KernelNode*> add_kernel{
      library_, "cuGraphAddKernelNode_v2"};
  const Call<GraphNode*, Graph, const GraphNode*, std::size_t, const CopyNode*, Context> add_copy{
      library_, "cuGraphAddMemcpyNode"};
  const Call<Executable*, Graph, unsigned long long> instantiate{library_,
                                                                 "cuGraphInstantiateWithFlags"};
  const Call<Executable> destroy_executable{library_, "cuGraphExecDestroy"};
  const Call<Executable, GraphNode, const KernelNode*> set_kernel{
      library_, "cuGraphExecKernelNodeSetParams_v2"};
  const Call<Executable, GraphNode, const CopyNode*, Context> set_copy{
      library_, "cuGraphExecMemcpyNodeSetParams"};
  const Call<Executable, Stream> launch_graph{library_, "cuGraphLaunch"};

  // The driver's name of an error.
  std::string name_of(Result result) const {
    const char* name = nullptr;
    const bool is_known = error_name.result(result, &name) == success && name;
    return is_known ? name : "error " + std::to_string(result);
  }

  // Call a function, whose types the arguments take. Throws Error where it fails.
  template <class... Arguments>
  void operator()(const Call<Arguments...>& call, std::decay_t<Arguments>... arguments) const {
    const Result result = call.result(arguments...);
    if (result != success)
      throw Error(ErrorCode::driver, std::string("NVIDIA's driver: ") + call.name() + " fails (" +
                                         name_of(result) + ").");
  }
};

// The driver stays loaded: sessions may end behind everything else. Throws Error where there is none.
inline const Driver& driver() {
  static const Driver loaded;
  return loaded;
}

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_DRIVER_HPP_
