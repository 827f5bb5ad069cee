// How every function of the API begins and ends.
#pragma once
#include <array>

#include "work.hpp"
#include "world.hpp"

namespace stand_in {

// Give memory back (memory.cpp), end a graph and its nodes (graphs.cpp).
void release(CUdeviceptr address);
void end_graph(CUgraph graph);
// What a launch does, if its parameters are those of a launch (modules.cpp).
Action launch_of(CUctx_st& context, CUfunction function, std::array<unsigned, 3> grid,
                 std::array<unsigned, 3> block, unsigned shared_bytes, void** parameters,
                 void** extra);

template <typename F>
CUresult locked(F function) {
  const std::lock_guard<std::mutex> guard(world().lock);
  try {
    function();
    return CUDA_SUCCESS;
  } catch (const Failure& failure) {
    return failure.result;
  }
}

// A function that may be called as soon as cuInit was.
template <typename F>
CUresult initialized(F function) {
  return locked([&] {
    need(world().initialized, CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
    function();
  });
}

// A function of the calling thread's context.
template <typename F>
CUresult in_context(F function) {
  return initialized([&] {
    need(!current.empty() && world().contexts.has(current.back()), CUDA_ERROR_INVALID_CONTEXT,
         "the calling thread has no context");
    CUctx_st& context = *current.back();
    if (context.broken) fail(context.broken, "the context is broken");
    function(context);
    if (context.broken) fail(context.broken, "a kernel failed");
  });
}

// The same for what must not happen while a stream is recorded (cuThreadExchangeStreamCaptureMode).
template <typename F>
CUresult unsafe_in_context(F function) {
  return in_context([&](CUctx_st& context) {
    forbid_while_recording();
    function(context);
  });
}

template <typename T>
void give(T* to, T value) {
  need(to != nullptr, CUDA_ERROR_INVALID_VALUE, "a result has no place");
  *to = value;
}

}  // namespace stand_in
