// Streams: what waits in them, in which order it happens, and what is recorded instead.
//
// Work happens as late as the API allows: when somebody waits for it. A program that does not wait,
// or not for the right stream, reads what was there before.
#pragma once
#include "memory.hpp"
#include "world.hpp"

namespace stand_in {

void perform(const Action& action);

inline CUstream stream_of(CUctx_st& context, CUstream handle) {
  const auto special = reinterpret_cast<std::uintptr_t>(handle);
  if (special == 0 || special == kLegacyStream) return context.legacy;
  if (special == kThreadStream) {
    CUstream& mine = context.of_thread[std::this_thread::get_id()];
    if (!mine) mine = world().streams.make(CUstream_st{&context, true});
    return mine;
  }
  CUstream_st& stream = world().streams.at(handle, "stream");
  need(stream.context == &context, CUDA_ERROR_INVALID_HANDLE, "a stream of another context");
  return &stream;
}

// Do `work`, and before it all that it waits for.
inline void run(const WorkRef& work) {
  std::vector<WorkRef> open;
  if (work) open.push_back(work);
  while (!open.empty()) {
    const WorkRef top = open.back();
    if (!top->done && !top->before.empty()) {
      const WorkRef first = top->before.back();
      top->before.pop_back();
      if (!first->done) open.push_back(first);
      continue;
    }
    open.pop_back();
    if (std::exchange(top->done, true)) continue;
    const auto body = std::move(top->body);
    if (body) body();
  }
}

inline void invalidate(CUstream_st& stream) {
  if (stream.capture) stream.capture->valid = false;
}

// What cuThreadExchangeStreamCaptureMode says of calls that are potentially unsafe.
inline void forbid_while_recording() {
  bool forbidden = false;
  for (const auto& [handle, stream] : world().streams) {
    if (!stream->capture || capture_mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    const Capture& capture = *stream->capture;
    const bool mine = capture.thread == std::this_thread::get_id();
    const bool stops = mine ? capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED
                            : capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                                  capture_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (!stops) continue;
    invalidate(*stream);
    forbidden = true;
  }
  need(!forbidden, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "not while a stream is recorded");
}

inline void forbid_implicit_wait(CUctx_st& context) {
  for (const auto& [handle, stream] : world().streams) {
    if (stream->context != &context || !stream->blocking || !stream->capture) continue;
    invalidate(*stream);
    fail(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the default stream waits for one that is recorded");
  }
}

// What new work of a stream has to wait for.
inline std::vector<WorkRef> before_next(CUctx_st& context, const CUstream_st& stream) {
  std::vector<WorkRef> before;
  const auto add = [&](const WorkRef& work) {
    if (work && !work->done) before.push_back(work);
  };
  add(stream.tail);
  if (&stream == context.legacy) {
    for (const auto& [handle, other] : world().streams)
      if (other->context == &context && other->blocking) add(other->tail);
  } else if (stream.blocking) {
    add(context.legacy->tail);
  }
  return before;
}

inline WorkRef enqueue(CUctx_st& context, CUstream_st& stream, std::function<void()> body) {
  if (&stream == context.legacy) forbid_implicit_wait(context);
  auto work = std::make_shared<Work>();
  work->before = before_next(context, stream);
  work->body = [&context, body = std::move(body)] {
    if (context.broken || !body) return;
    try {
      body();
    } catch (const Failure& failure) {
      context.broken = failure.result;
    }
  };
  stream.tail = work;
  return work;
}

// Put `action` into a stream, or into the graph that the stream is recorded into.
inline void submit(CUctx_st& context, CUstream_st& stream, const Action& action) {
  if (!stream.capture) {
    enqueue(context, stream, [action] { perform(action); });
    return;
  }
  Capture& capture = *stream.capture;
  need(capture.valid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the recording has failed");
  CUgraphNode node =
      world().nodes.make(CUgraphNode_st{capture.graph, std::move(capture.last), action});
  capture.graph->nodes.push_back(node);
  capture.last = {node};
}

inline void wait_for(CUstream_st& stream) {
  if (stream.capture) {
    invalidate(stream);
    fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream that is recorded is waited for");
  }
  run(stream.tail);
}

inline void wait_for_all(CUctx_st& context) {
  for (const auto& [handle, stream] : world().streams)
    if (stream->context == &context) run(stream->tail);
  for (const WorkRef& work : context.left) run(work);
  context.left.clear();
}

}  // namespace stand_in
