// A session on a GPU: the model, what its calls write, and calls.
#ifndef GSB_TVM_DETAIL_CUDA_STATE_HPP_
#define GSB_TVM_DETAIL_CUDA_STATE_HPP_

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../../cuda_views.hpp"
#include "../../tensor.hpp"
#include "../batches.hpp"
#include "../checks.hpp"
#include "../file.hpp"
#include "../whole_tensors.hpp"
#include "checks.hpp"
#include "device.hpp"
#include "model.hpp"
#include "rooms.hpp"
#include "staging.hpp"

namespace gsb_tvm::detail::cuda {

class State {
 public:
  State(const File& file, int ordinal) : State(file, read_gpu_artefact(file), ordinal) {}

  void run(const CudaInput* in, std::size_t in_count, const CudaOutput* out, std::size_t out_count,
           Stream stream) {
    check_number(in_count, inputs.size(), "inputs");
    check_number(out_count, outputs.size(), "outputs");
    check_process();
    const std::int64_t batch = is_open() && in_count ? images(in[0]) : 1;
    const Current current(device->context());
    const bool is_recorded = is_recording(stream);
    for (std::size_t i = 0; i < in_count; ++i) check(in[i], inputs[i], batch, is_recorded);
    for (std::size_t i = 0; i < out_count; ++i) check(out[i], outputs[i], batch, is_recorded);
    if (is_open()) check_batch(batches, batch);
    Copies copies(staging_, stream);
    std::vector<void*> tensors;
    for (std::size_t i = 0; i < in_count; ++i) tensors.push_back(place(in[i], copies));
    for (std::size_t i = 0; i < out_count; ++i) tensors.push_back(place(out[i], copies));
    if (is_recorded)
      enqueue(tensors, batch, stream);
    else
      launch(tensors, batch, stream);
    copies.finish();
  }

  std::vector<Tensor> run(const std::vector<Tensor>& given) {
    std::vector<Tensor> made = outputs_for(given, inputs, outputs, is_open());
    const std::vector<CudaInput> in(given.begin(), given.end());
    const std::vector<CudaOutput> out(made.begin(), made.end());
    run(in.data(), in.size(), out.data(), out.size(), nullptr);
    return made;
  }

  std::shared_ptr<const Device> device;
  Model model;
  std::vector<std::int64_t> batches;
  std::vector<TensorInfo> inputs, outputs;

 private:
  State(const File& file, Artefact artefact, int ordinal)
      : device(std::make_shared<const Device>(ordinal)),
        model(file, std::move(artefact), *device),
        batches(detail::batches(model.about().programs)),
        staging_(*device),
        rooms_(*device, model) {
    const Program& program = model.programs()[0].program;
    inputs = detail::images(program.inputs, program.batch);
    outputs = detail::images(program.outputs, program.batch);
  }

  bool is_open() const noexcept { return !batches.empty(); }

  void check_process() const {
    if (getpid() != process_)
      refuse("the process was forked, and CUDA stays with its parent. Fork before a model is loaded, "
             "or start another program.");
  }

  static bool is_recording(Stream stream) {
    int status = captures_nothing;
    driver()(driver().is_capturing, stream, &status);
    return status != captures_nothing;
  }

  std::int64_t images(const CudaInput& input) const {
    return input.on_device() ? images_in(*input.on_device(), inputs[0])
                             : detail::images_in(input.on_host(), inputs[0]);
  }

  void check(const CudaInput& input, const TensorInfo& info, std::int64_t batch,
             bool is_recorded) const {
    if (input.on_device())
      check_tensor(*input.on_device(), info, "input", input_alignment, is_open(), batch, *device);
    else
      check_host(input.on_host(), info, "input", batch, is_recorded);
  }

  void check(const CudaOutput& output, const TensorInfo& info, std::int64_t batch,
             bool is_recorded) const {
    if (output.on_device())
      check_tensor(*output.on_device(), info, "output", size_of(info.dtype), is_open(), batch,
                   *device);
    else
      check_host(output.on_host().view(), info, "output", batch, is_recorded);
  }

  static void check_host(const Input& view, const TensorInfo& info, const char* kind,
                         std::int64_t batch, bool is_recorded) {
    check_view(view, info, kind, batch);
    if (is_recorded)
      refuse(std::string(kind) + " \"" + info.name +
             "\": is in the host's memory, and the stream is recorded into a graph, where nobody "
             "waits for copies. Give a tensor on the GPU.");
  }

  static void* place(const CudaInput& input, Copies& copies) {
    if (const DeviceInput* tensor = input.on_device())
      return const_cast<void*>(tensor->data());  // kernels take it as const
    return copies.uploaded(input.on_host().data(), input.on_host().size_bytes());
  }

  static void* place(const CudaOutput& output, Copies& copies) {
    if (const DeviceOutput* tensor = output.on_device()) return tensor->data();
    return copies.downloaded(output.on_host().data(), output.on_host().view().size_bytes());
  }

  void launch(const std::vector<void*>& tensors, std::int64_t batch, Stream stream) {
    Room& room = rooms_.of(stream);
    const Room::Turn turn(room, stream);
    run_pieces(model.programs(), tensors, batch,
               [&](const Runnable& runnable, const std::vector<void*>& at) {
                 room.run(runnable, at, stream);
               });
  }

  void enqueue(const std::vector<void*>& tensors, std::int64_t batch, Stream stream) {
    const Room& room = rooms_.of(stream);
    run_pieces(model.programs(), tensors, batch,
               [&](const Runnable& runnable, const std::vector<void*>& at) {
                 room.enqueue(runnable, at, stream);
               });
  }

  const pid_t process_ = getpid();
  Staging staging_;
  Rooms rooms_;
};

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_STATE_HPP_
