// Streams, events, and streams that are recorded into graphs.
#include "api.hpp"

using namespace stand_in;

namespace {

CUevent_st& event_of(CUctx_st& context, CUevent handle) {
  CUevent_st& event = world().events.at(handle, "event");
  need(event.context == &context, CUDA_ERROR_INVALID_HANDLE, "an event of another context");
  return event;
}

void need_no_capture(CUstream_st& stream) {
  if (!stream.capture) return;
  invalidate(stream);
  fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "not in a stream that is recorded");
}

// Make a thing happen, one at a time, as a GPU goes on by itself: asked often enough it is done.
CUresult answer(const WorkRef& work) {
  if (!work || work->done) return CUDA_SUCCESS;
  run(work);
  return CUDA_ERROR_NOT_READY;
}

}  // namespace

GSB_API CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  return in_context([&](CUctx_st& context) {
    need(flags <= CU_STREAM_NON_BLOCKING, CUDA_ERROR_INVALID_VALUE, "unknown flags");
    give(stream, world().streams.make(CUstream_st{&context, flags != CU_STREAM_NON_BLOCKING}));
  });
}

GSB_API CUresult cuStreamDestroy_v2(CUstream handle) {
  return in_context([&](CUctx_st& context) {
    CUstream_st& stream = world().streams.at(handle, "stream");
    need(&stream != context.legacy, CUDA_ERROR_INVALID_HANDLE, "the default stream stays");
    need(!stream.capture, CUDA_ERROR_ILLEGAL_STATE, "the stream is recorded");
    if (stream.tail) context.left.push_back(stream.tail);
    world().streams.end(handle);
  });
}

GSB_API CUresult cuStreamSynchronize(CUstream stream) {
  return in_context([&](CUctx_st& context) {
    CUstream_st& queue = *stream_of(context, stream);
    if (&queue == context.legacy) forbid_implicit_wait(context);
    if (!queue.capture) forbid_while_recording();
    // What the legacy stream is behind includes what blocking streams were told before.
    if (&queue == context.legacy) enqueue(context, queue, {});
    wait_for(queue);
  });
}

GSB_API CUresult cuStreamQuery(CUstream stream) {
  CUresult found = CUDA_SUCCESS;
  const CUresult result = in_context([&](CUctx_st& context) {
    CUstream_st& queue = *stream_of(context, stream);
    need_no_capture(queue);
    found = answer(queue.tail);
  });
  return result ? result : found;
}

GSB_API CUresult cuStreamGetFlags(CUstream stream, unsigned* flags) {
  return in_context([&](CUctx_st& context) {
    give(flags, stream_of(context, stream)->blocking ? 0u : CU_STREAM_NON_BLOCKING);
  });
}

GSB_API CUresult cuStreamGetCtx(CUstream stream, CUcontext* owner) {
  return in_context([&](CUctx_st& context) { give(owner, stream_of(context, stream)->context); });
}

GSB_API CUresult cuStreamWaitEvent(CUstream stream, CUevent handle, unsigned) {
  return in_context([&](CUctx_st& context) {
    CUstream_st& queue = *stream_of(context, stream);
    const CUevent_st& event = event_of(context, handle);
    need_no_capture(queue);
    const WorkRef work = enqueue(context, queue, {});
    if (event.work && !event.work->done) work->before.push_back(event.work);
  });
}

GSB_API CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  return in_context([&](CUctx_st& context) {
    CUstream_st& queue = *stream_of(context, stream);
    need(&queue != context.legacy, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
         "the default stream cannot be recorded");
    need(!queue.capture, CUDA_ERROR_ILLEGAL_STATE, "the stream is recorded already");
    const CUgraph graph = world().graphs.make();
    queue.capture = std::make_unique<Capture>(Capture{graph, mode, std::this_thread::get_id(), {}});
  });
}

GSB_API CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  return in_context([&](CUctx_st& context) {
    CUstream_st& queue = *stream_of(context, stream);
    need(queue.capture != nullptr, CUDA_ERROR_ILLEGAL_STATE, "the stream is not recorded");
    need(queue.capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED ||
             queue.capture->thread == std::this_thread::get_id(),
         CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "recorded by another thread");
    const std::unique_ptr<Capture> ended = std::move(queue.capture);
    give(graph, ended->valid ? ended->graph : nullptr);
    if (ended->valid) return;
    end_graph(ended->graph);
    fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the recording has failed");
  });
}

GSB_API CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  return in_context([&](CUctx_st& context) {
    const CUstream_st& queue = *stream_of(context, stream);
    if (&queue == context.legacy)
      for (const auto& [handle, other] : world().streams)
        need(other->context != &context || !other->blocking || !other->capture,
             CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "another stream is recorded");
    give(status, !queue.capture          ? CU_STREAM_CAPTURE_STATUS_NONE
                 : queue.capture->valid ? CU_STREAM_CAPTURE_STATUS_ACTIVE
                                        : CU_STREAM_CAPTURE_STATUS_INVALIDATED);
  });
}

GSB_API CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  return initialized([&] {
    need(mode && *mode >= CU_STREAM_CAPTURE_MODE_GLOBAL && *mode <= CU_STREAM_CAPTURE_MODE_RELAXED,
         CUDA_ERROR_INVALID_VALUE, "no such mode");
    std::swap(*mode, capture_mode);
  });
}

GSB_API CUresult cuEventCreate(CUevent* event, unsigned flags) {
  return in_context([&](CUctx_st& context) {
    need(flags < 8, CUDA_ERROR_INVALID_VALUE, "unknown flags");
    const bool timed = !(flags & CU_EVENT_DISABLE_TIMING);
    give(event, world().events.make(CUevent_st{&context, timed}));
  });
}

GSB_API CUresult cuEventDestroy_v2(CUevent event) {
  return in_context([&](CUctx_st& context) {
    if (const WorkRef work = event_of(context, event).work) run(work);
    world().events.end(event);
  });
}

GSB_API CUresult cuEventRecord(CUevent handle, CUstream stream) {
  return in_context([&](CUctx_st& context) {
    CUevent_st& event = event_of(context, handle);
    CUstream_st& queue = *stream_of(context, stream);
    need_no_capture(queue);
    event.work = enqueue(context, queue,
                         [&event] { event.happened = std::chrono::steady_clock::now(); });
  });
}

GSB_API CUresult cuEventSynchronize(CUevent event) {
  return unsafe_in_context([&](CUctx_st& context) { run(event_of(context, event).work); });
}

GSB_API CUresult cuEventQuery(CUevent event) {
  CUresult found = CUDA_SUCCESS;
  const CUresult result = unsafe_in_context(
      [&](CUctx_st& context) { found = answer(event_of(context, event).work); });
  return result ? result : found;
}

GSB_API CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  return in_context([&](CUctx_st& context) {
    const CUevent_st &from = event_of(context, start), &to = event_of(context, end);
    need(from.timed && to.timed && from.work && to.work, CUDA_ERROR_INVALID_HANDLE,
         "an event without a time");
    need(from.work->done && to.work->done, CUDA_ERROR_NOT_READY, "an event has not happened");
    const std::chrono::duration<float, std::milli> between = to.happened - from.happened;
    give(milliseconds, between.count());
  });
}
