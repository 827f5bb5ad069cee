// Compiled models on GPUs of NVIDIA in a C++17 program: headers only, without CUDA's toolkit.
//
//   gsb_tvm::CudaSession session("model.so");
//   session.run({image}, {logits});  // containers, arrays, Tensors: copied there and back
//   session.run({gsb_tvm::DeviceInput(pointer, {1, 3, 224, 224})}, {tensor}, stream);  // as they are
//
// Needs the C++ library, the dynamic loader and, when a session is made, NVIDIA's driver, 525 or
// later. Linux, x86-64 and 64-bit Arm. cuda.h or cuda_runtime.h may be included, too.
#ifndef GSB_TVM_CUDA_SESSION_HPP_
#define GSB_TVM_CUDA_SESSION_HPP_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda_tensor.hpp"
#include "cuda_views.hpp"
#include "detail/cuda/state.hpp"
#include "dtype.hpp"
#include "error.hpp"
#include "tensor.hpp"
#include "version.hpp"
#include "views.hpp"

namespace gsb_tvm {

/// A compiled model on a GPU, which any number of threads may run at the same time.
///
/// Works in the GPU's primary context, as CUDA's runtime does. Calls on one stream share memory,
/// which is kept from call to call, and happen one behind the other; calls on different streams
/// have memory of their own.
class CudaSession {
 public:
  /// Check an artefact, then bring it to a GPU, by its number. Throws Error.
  explicit CudaSession(const std::string& path, int gpu = 0)
      : state_(std::make_unique<State>(detail::File(path), gpu)) {}

  static CudaSession load(const std::string& path, int gpu = 0) { return CudaSession(path, gpu); }

  /// In the order of the model. Of a single image where `batches()` is not empty.
  const std::vector<TensorInfo>& inputs() const { return state().inputs; }
  const std::vector<TensorInfo>& outputs() const { return state().outputs; }

  /// Batches that the artefact has code for, ascending, as gsb_tvm::Session::batches says it.
  const std::vector<std::int64_t>& batches() const { return state().batches; }

  int gpu() const { return state().device->ordinal(); }
  /// Memory on the GPU of each stream that calls came on.
  std::size_t memory_bytes() const { return state().model.memory_bytes(); }
  /// The model's file, and what it was compiled for and with.
  const std::string& model() const { return state().model.about().model; }
  const std::string& target() const { return state().model.about().target; }
  const std::string& compiler() const { return state().model.about().compiler; }

  /// Run the model on a stream, by default the legacy one: a CUstream or cudaStream_t.
  ///
  /// Where all tensors are on the GPU it returns as soon as the work is in the stream; else it waits
  /// for the stream. Where the stream is being recorded into a graph, the model's launches go there:
  /// all tensors are on the GPU then, the session lives as long as the graph, and the graph must not
  /// run at the same time as calls on that stream, or as another graph recorded there. Inputs and outputs must not overlap. Throws Error.
  void run(std::initializer_list<CudaInput> inputs, std::initializer_list<CudaOutput> outputs,
           CUstream_st* stream = nullptr) const {
    state().run(inputs.begin(), inputs.size(), outputs.begin(), outputs.size(), stream);
  }
  void run(const std::vector<CudaInput>& inputs, const std::vector<CudaOutput>& outputs,
           CUstream_st* stream = nullptr) const {
    state().run(inputs.data(), inputs.size(), outputs.data(), outputs.size(), stream);
  }

  /// Run the model on tensors whose shapes are the model's, and return its outputs. Throws Error.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs) const { return state().run(inputs); }

  /// A tensor in the GPU's memory. Throws Error.
  CudaTensor tensor(Dtype dtype, std::vector<std::int64_t> shape) const {
    return CudaTensor(state().device, dtype, std::move(shape));
  }

 private:
  using State = detail::cuda::State;

  State& state() const {
    if (!state_) throw Error(ErrorCode::argument, "the session was moved to another one.");
    return *state_;
  }

  std::unique_ptr<State> state_;
};

}  // namespace gsb_tvm

#endif  // GSB_TVM_CUDA_SESSION_HPP_
