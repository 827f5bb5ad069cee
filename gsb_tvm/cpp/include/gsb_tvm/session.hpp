// Compiled models in a C++17 program: headers only, without TVM and Python.
//
//   gsb_tvm::Session session("model.so", 2);
//   std::vector<float> image(session.inputs()[0].count), logits(session.outputs()[0].count);
//   session.run({image}, {logits});
//
// Needs the C++ library, POSIX threads and the dynamic loader. Linux, x86-64 and 64-bit Arm.
#ifndef GSB_TVM_SESSION_HPP_
#define GSB_TVM_SESSION_HPP_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "detail/state.hpp"
#include "dtype.hpp"
#include "error.hpp"
#include "tensor.hpp"
#include "version.hpp"
#include "views.hpp"

namespace gsb_tvm {

/// A compiled model, which any number of threads may run at the same time.
///
/// Calls at the same time have memory and threads of their own, which are kept from call to call.
class Session {
 public:
  /// Check an artefact, then load it; `threads` threads, 1 to 64, share the work of each call, the
  /// caller's among them. Throws Error, and none of the artefact's code runs before.
  explicit Session(const std::string& path, int threads = 1)
      : state_(std::make_unique<State>(path, checked(threads))) {}

  static Session load(const std::string& path, int threads = 1) { return Session(path, threads); }

  /// In the order of the model. Of a single image where `batches()` is not empty.
  const std::vector<TensorInfo>& inputs() const { return state().inputs; }
  const std::vector<TensorInfo>& outputs() const { return state().outputs; }

  /// Batches that the artefact has code for, ascending. Empty where the shapes are as they stand;
  /// else a call takes any number of images that can be cut into these, the largest first: 5 are 4
  /// and 1, and give what calls of 4 and 1 give.
  const std::vector<std::int64_t>& batches() const { return state().batches; }

  int threads() const { return state().threads; }
  /// Memory of each call at the same time.
  std::size_t memory_bytes() const { return state().model.memory_bytes(state().threads); }
  /// The model's file, and what it was compiled for and with.
  const std::string& model() const { return state().model.about().model; }
  const std::string& target() const { return state().model.about().target; }
  const std::string& compiler() const { return state().model.about().compiler; }

  /// Run the model. Inputs and outputs must not overlap. Throws Error.
  void run(std::initializer_list<Input> inputs, std::initializer_list<Output> outputs) const {
    state().run(inputs.begin(), inputs.size(), outputs.begin(), outputs.size());
  }
  void run(const std::vector<Input>& inputs, const std::vector<Output>& outputs) const {
    state().run(inputs.data(), inputs.size(), outputs.data(), outputs.size());
  }

  /// Run the model on tensors whose shapes are the model's, and return its outputs. Throws Error.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs) const { return state().run(inputs); }

 private:
  using State = detail::State;

  static int checked(int threads) {
    if (threads < 1 || threads > GSB_MOST_PARTS)
      throw Error(ErrorCode::argument, std::to_string(threads) +
                                           " threads are asked for, expected 1 to " +
                                           std::to_string(GSB_MOST_PARTS) + ".");
    return threads;
  }

  State& state() const {
    if (!state_) throw Error(ErrorCode::argument, "the session was moved to another one.");
    return *state_;
  }

  std::unique_ptr<State> state_;
};

}  // namespace gsb_tvm

#endif  // GSB_TVM_SESSION_HPP_
