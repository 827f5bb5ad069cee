// Memory: of the GPU, of the host for fast copies, and copies between them.
#include "api.hpp"

using namespace stand_in;

namespace {

// A copy; a side on the GPU must lie in one allocation.
Action copy(void* target, const void* source, std::size_t size, bool to_gpu, bool from_gpu) {
  for (const auto& [pointer, on_gpu] :
       {std::pair<const void*, bool>{target, to_gpu}, {source, from_gpu}}) {
    need(pointer != nullptr, CUDA_ERROR_INVALID_VALUE, "a copy from or to nothing");
    need(on_gpu ? holds(pointer, size) : !holding(pointer), CUDA_ERROR_INVALID_VALUE,
         "a copy beyond memory, or with its sides confused");
  }
  Action action{Action::kCopy};
  action.copy = {target, source, size, to_gpu, from_gpu};
  return action;
}

Action fill(CUdeviceptr target, unsigned char value, std::size_t size) {
  need(holds(pointer_at(target), size), CUDA_ERROR_INVALID_VALUE, "a fill beyond memory");
  Action action{Action::kFill};
  action.fill = {pointer_at(target), size, value};
  return action;
}

template <typename F>
CUresult asynchronous(CUstream stream, F action) {
  return in_context([&](CUctx_st& context) {
    CUstream_st& queue = *stream_of(context, stream);
    submit(context, queue, action());
  });
}

// In the legacy stream; `waits` until it has happened.
template <typename F>
CUresult synchronous(bool waits, F action) {
  return unsafe_in_context([&](CUctx_st& context) {
    submit(context, *context.legacy, action());
    if (waits) run(context.legacy->tail);
  });
}

}  // namespace

namespace stand_in {

void release(CUdeviceptr address) {
  const auto found = world().memory.find(static_cast<std::uintptr_t>(address));
  need(found != world().memory.end(), CUDA_ERROR_INVALID_VALUE, "no allocation begins there");
  const Allocation each = found->second;
  protect(each, PROT_READ);
  const bool whole = intact(each);
  munmap(each.mapped, each.mapped_bytes);
  each.context->used_bytes -= each.size;
  world().memory.erase(found);
  if (whole) return;
  say("something was written beside an allocation");
  each.context->broken = CUDA_ERROR_ILLEGAL_ADDRESS;
}

}  // namespace stand_in

GSB_API CUresult cuMemAlloc_v2(CUdeviceptr* pointer, std::size_t size) {
  return unsafe_in_context([&](CUctx_st& context) {
    need(pointer != nullptr, CUDA_ERROR_INVALID_VALUE, "memory has no place");
    *pointer = allocate(context, size);
  });
}

GSB_API CUresult cuMemFree_v2(CUdeviceptr pointer) {
  return unsafe_in_context([&](CUctx_st& context) {
    if (!pointer) return;
    wait_for_all(context);
    release(pointer);
  });
}

GSB_API CUresult cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  return in_context([&](CUctx_st& context) {
    give(free, world().memory_bytes - context.used_bytes);
    give(total, world().memory_bytes);
  });
}

GSB_API CUresult cuMemHostAlloc(void** pointer, std::size_t size, unsigned) {
  return unsafe_in_context([&](CUctx_st&) {
    need(pointer && size, CUDA_ERROR_INVALID_VALUE, "no bytes are asked for");
    *pointer = std::malloc(size);
    world().host_memory.emplace(*pointer, size);
  });
}

GSB_API CUresult cuMemFreeHost(void* pointer) {
  return unsafe_in_context([&](CUctx_st& context) {
    need(world().host_memory.erase(pointer) == 1, CUDA_ERROR_INVALID_VALUE,
         "not memory of the host that was asked for");
    wait_for_all(context);
    std::free(pointer);
  });
}

// A fill is not waited for, a copy inside the GPU neither: "API synchronization behavior".
GSB_API CUresult cuMemsetD8_v2(CUdeviceptr target, unsigned char value, std::size_t size) {
  return synchronous(false, [&] { return fill(target, value, size); });
}

GSB_API CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, std::size_t size,
                                 CUstream stream) {
  return asynchronous(stream, [&] { return fill(target, value, size); });
}

GSB_API CUresult cuMemcpyHtoD_v2(CUdeviceptr target, const void* source, std::size_t size) {
  return synchronous(true, [&] { return copy(pointer_at(target), source, size, true, false); });
}

GSB_API CUresult cuMemcpyDtoH_v2(void* target, CUdeviceptr source, std::size_t size) {
  return synchronous(true, [&] { return copy(target, pointer_at(source), size, false, true); });
}

GSB_API CUresult cuMemcpyDtoD_v2(CUdeviceptr target, CUdeviceptr source, std::size_t size) {
  return synchronous(
      false, [&] { return copy(pointer_at(target), pointer_at(source), size, true, true); });
}

GSB_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void* source, std::size_t size,
                                      CUstream stream) {
  return asynchronous(stream,
                      [&] { return copy(pointer_at(target), source, size, true, false); });
}

GSB_API CUresult cuMemcpyDtoHAsync_v2(void* target, CUdeviceptr source, std::size_t size,
                                      CUstream stream) {
  return asynchronous(stream,
                      [&] { return copy(target, pointer_at(source), size, false, true); });
}

GSB_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, std::size_t size,
                                      CUstream stream) {
  return asynchronous(
      stream, [&] { return copy(pointer_at(target), pointer_at(source), size, true, true); });
}

GSB_API CUresult cuMemcpyAsync(CUdeviceptr target, CUdeviceptr source, std::size_t size,
                               CUstream stream) {
  return asynchronous(stream, [&] {
    void *to = pointer_at(target), *from = pointer_at(source);
    return copy(to, from, size, holding(to) != nullptr, holding(from) != nullptr);
  });
}

GSB_API CUresult cuPointerGetAttribute(void* value, CUpointer_attribute attribute,
                                       CUdeviceptr pointer) {
  return initialized([&] {
    const Allocation* found = holding(pointer_at(pointer));
    need(found && value, CUDA_ERROR_INVALID_VALUE, "not a pointer of a GPU");
    const auto answer = [&](auto known) { std::memcpy(value, &known, sizeof known); };
    switch (attribute) {
      case CU_POINTER_ATTRIBUTE_CONTEXT:
        return answer(found->context);
      case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        return answer(CU_MEMORYTYPE_DEVICE);
      case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        return answer(pointer);
      case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        return answer(0u);
      case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        return answer(found->context->device);
      case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        return answer(found->base);
      case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        return answer(found->size);
    }
    fail(CUDA_ERROR_INVALID_VALUE, "an attribute that the stand-in does not know");
  });
}
