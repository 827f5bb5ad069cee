// The driver itself, GPUs and contexts, names of errors, addresses of functions.
#include <dlfcn.h>

#include <cstring>

#include "api.hpp"

using namespace stand_in;

namespace {

constexpr int kVersion = 13000;

struct Named {
  CUresult result;
  const char* name;
  const char* text;
};
constexpr Named kNames[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE",
     "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS",
     "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "capture was not ended in the same stream as it began"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

CUresult named(CUresult error, const char** to, const char* Named::*what) {
  for (const Named& each : kNames) {
    if (each.result != error) continue;
    *to = each.*what;
    return CUDA_SUCCESS;
  }
  *to = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

// Functions whose form changed: what the newest is exported as, and from which version on.
struct Form {
  const char* name;
  int version;
};
const std::map<std::string, Form> kForms = {
    {"cuCtxPopCurrent", {"cuCtxPopCurrent_v2", 4000}},
    {"cuCtxPushCurrent", {"cuCtxPushCurrent_v2", 4000}},
    {"cuDevicePrimaryCtxRelease", {"cuDevicePrimaryCtxRelease_v2", 11000}},
    {"cuDeviceTotalMem", {"cuDeviceTotalMem_v2", 3020}},
    {"cuEventDestroy", {"cuEventDestroy_v2", 4000}},
    {"cuEventElapsedTime", {"cuEventElapsedTime_v2", 12080}},
    {"cuGetProcAddress", {"cuGetProcAddress_v2", 12000}},
    {"cuGraphAddKernelNode", {"cuGraphAddKernelNode_v2", 12000}},
    {"cuGraphExecKernelNodeSetParams", {"cuGraphExecKernelNodeSetParams_v2", 12000}},
    {"cuGraphInstantiate", {"cuGraphInstantiateWithFlags", 12000}},
    {"cuMemAlloc", {"cuMemAlloc_v2", 3020}},
    {"cuMemFree", {"cuMemFree_v2", 3020}},
    {"cuMemGetInfo", {"cuMemGetInfo_v2", 3020}},
    {"cuMemcpyDtoD", {"cuMemcpyDtoD_v2", 3020}},
    {"cuMemcpyDtoDAsync", {"cuMemcpyDtoDAsync_v2", 3020}},
    {"cuMemcpyDtoH", {"cuMemcpyDtoH_v2", 3020}},
    {"cuMemcpyDtoHAsync", {"cuMemcpyDtoHAsync_v2", 3020}},
    {"cuMemcpyHtoD", {"cuMemcpyHtoD_v2", 3020}},
    {"cuMemcpyHtoDAsync", {"cuMemcpyHtoDAsync_v2", 3020}},
    {"cuMemsetD8", {"cuMemsetD8_v2", 3020}},
    {"cuStreamBeginCapture", {"cuStreamBeginCapture_v2", 10010}},
    {"cuStreamDestroy", {"cuStreamDestroy_v2", 4000}},
};

void need_gpu(CUdevice device) {
  need(device >= 0 && device < world().gpus, CUDA_ERROR_INVALID_DEVICE, "no such GPU");
}

// An H200's figures; of the GPU that it is taken for only the capability is another.
int attribute_of(CUdevice_attribute attribute) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
      return 48 << 10;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
      return 32;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
      return 1980000;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      return 132;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
      return 3201000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
      return 6144;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
      return 60 << 20;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
      return 1;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      return world().arch / 10;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      return world().arch % 10;
  }
  fail(CUDA_ERROR_INVALID_VALUE, "an attribute that the stand-in does not know");
}

void end_context(CUctx_st& context) {
  World& w = world();
  const auto end_of = [&](auto& living) {
    std::vector<typename std::decay_t<decltype(living)>::Handle> ours;
    for (const auto& [handle, each] : living)
      if (each->context == &context) ours.push_back(handle);
    for (auto handle : ours) living.end(handle);
  };
  wait_for_all(context);
  std::vector<CUdeviceptr> addresses;
  for (const auto& [base, each] : w.memory)
    if (each.context == &context) addresses.push_back(base);
  for (CUdeviceptr address : addresses) release(address);
  end_of(w.executables);
  end_of(w.streams);
  end_of(w.events);
  for (const auto& [handle, module] : w.modules)
    if (module->context == &context)
      for (const auto& [name, function] : module->functions) w.functions.end(function);
  end_of(w.modules);
  w.contexts.end(&context);
}

}  // namespace

GSB_API CUresult cuGetErrorName(CUresult error, const char** name) {
  return named(error, name, &Named::name);
}

GSB_API CUresult cuGetErrorString(CUresult error, const char** text) {
  return named(error, text, &Named::text);
}

GSB_API CUresult cuDriverGetVersion(int* version) {
  return locked([&] { give(version, kVersion); });
}

// NVIDIA's compiler looks here for what no header declares, and does without.
GSB_API CUresult cuGetExportTable(const void** table, const void*) {
  return locked([&] {
    give(table, static_cast<const void*>(nullptr));
    fail(CUDA_ERROR_NOT_FOUND, "there are no tables");
  });
}

GSB_API CUresult cuInit(unsigned flags) {
  return locked([&] {
    need(flags == 0, CUDA_ERROR_INVALID_VALUE, "flags of cuInit are 0");
    need(world().gpus > 0, CUDA_ERROR_NO_DEVICE, "there is no GPU");
    world().initialized = true;
  });
}

GSB_API CUresult cuDeviceGetCount(int* count) {
  return initialized([&] { give(count, world().gpus); });
}

GSB_API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return initialized([&] {
    need_gpu(ordinal);
    give(device, ordinal);
  });
}

GSB_API CUresult cuDeviceGetName(char* name, int size, CUdevice device) {
  return initialized([&] {
    need_gpu(device);
    need(name && size > 0, CUDA_ERROR_INVALID_VALUE, "a name has no place");
    std::snprintf(name, static_cast<std::size_t>(size), "Stand-in GPU");
  });
}

GSB_API CUresult cuDeviceTotalMem_v2(std::size_t* bytes, CUdevice device) {
  return initialized([&] {
    need_gpu(device);
    give(bytes, world().memory_bytes);
  });
}

GSB_API CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return initialized([&] {
    need_gpu(device);
    give(value, attribute_of(attribute));
  });
}

GSB_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return initialized([&] {
    need_gpu(device);
    CUcontext& primary = world().primary[device];
    if (!primary || !world().contexts.has(primary)) {
      primary = world().contexts.make(CUctx_st{device});
      primary->legacy = world().streams.make(CUstream_st{primary, true});
    }
    ++primary->retained;
    give(context, primary);
  });
}

GSB_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return initialized([&] {
    need_gpu(device);
    const CUcontext primary = world().primary[device];
    need(primary && world().contexts.has(primary), CUDA_ERROR_INVALID_CONTEXT,
         "the primary context is not retained");
    if (--primary->retained == 0) end_context(*primary);
  });
}

GSB_API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  return initialized([&] {
    need_gpu(device);
    give(flags, 0u);
    give(active, static_cast<int>(world().contexts.has(world().primary[device])));
  });
}

GSB_API CUresult cuCtxSetCurrent(CUcontext context) {
  return initialized([&] {
    if (!current.empty()) current.pop_back();
    if (!context) return;
    need(world().contexts.has(context), CUDA_ERROR_INVALID_CONTEXT, "no living context");
    current.push_back(context);
  });
}

GSB_API CUresult cuCtxGetCurrent(CUcontext* context) {
  return initialized([&] { give(context, current.empty() ? nullptr : current.back()); });
}

GSB_API CUresult cuCtxPushCurrent_v2(CUcontext context) {
  return initialized([&] {
    need(world().contexts.has(context), CUDA_ERROR_INVALID_CONTEXT, "no living context");
    current.push_back(context);
  });
}

GSB_API CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  return initialized([&] {
    need(!current.empty(), CUDA_ERROR_INVALID_CONTEXT, "the calling thread has no context");
    if (context) *context = current.back();
    current.pop_back();
  });
}

GSB_API CUresult cuCtxGetDevice(CUdevice* device) {
  return in_context([&](CUctx_st& context) { give(device, context.device); });
}

GSB_API CUresult cuCtxSynchronize() {
  return unsafe_in_context([&](CUctx_st& context) { wait_for_all(context); });
}

// The stand-in has the newest form of each function; one that is asked for by a version before that
// is not there. A name that is not in the table has one form.
GSB_API CUresult cuGetProcAddress_v2(const char* symbol, void** address, int version,
                                     std::uint64_t flags, CUdriverProcAddressQueryResult* status) {
  return locked([&] {
    need(symbol && address && flags < 2, CUDA_ERROR_INVALID_VALUE,
         "a question that the stand-in does not answer");
    const auto form = kForms.find(symbol);
    const std::string name = form == kForms.end() ? symbol : form->second.name;
    const bool is_known = form == kForms.end() || version >= form->second.version;
    static void* const self = [] {
      Dl_info found{};
      dladdr(reinterpret_cast<void*>(&cuInit), &found);
      return dlopen(found.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    }();
    *address = is_known ? dlsym(self, name.c_str()) : nullptr;
    if (status)
      *status = *address ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    if (!*address) throw Failure{CUDA_ERROR_NOT_FOUND};
  });
}
