// A session: the model, its contexts, and calls.
#ifndef GSB_TVM_DETAIL_STATE_HPP_
#define GSB_TVM_DETAIL_STATE_HPP_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../tensor.hpp"
#include "../views.hpp"
#include "batches.hpp"
#include "checks.hpp"
#include "contexts.hpp"
#include "file.hpp"
#include "model.hpp"
#include "whole_tensors.hpp"

namespace gsb_tvm::detail {

struct State {
  State(const std::string& path, int threads_of_a_call)
      : model(File(path)),
        threads(threads_of_a_call),
        contexts(model, threads),
        batches(detail::batches(model.about().programs)) {
    const Program& program = model.programs()[0].program;
    inputs = images(program.inputs, program.batch);
    outputs = images(program.outputs, program.batch);
  }

  void run(const Input* in, std::size_t in_count, const Output* out, std::size_t out_count) {
    check_number(in_count, inputs.size(), "inputs");
    check_number(out_count, outputs.size(), "outputs");
    const bool is_open = !batches.empty();
    const std::int64_t batch = is_open && in_count ? images_in(in[0], inputs[0]) : 1;
    Tensors tensors = {};
    for (std::size_t i = 0; i < in_count; ++i) {
      check_view(in[i], inputs[i], "input", batch);
      tensors[i] = const_cast<void*>(in[i].data());  // it takes them as const
    }
    for (std::size_t i = 0; i < out_count; ++i) {
      check_view(out[i].view(), outputs[i], "output", batch);
      tensors[in_count + i] = out[i].data();
    }
    if (is_open) check_batch(batches, batch);
    const Contexts::Lease context(contexts);
    run_pieces(model.programs(), tensors, batch, [&](const Runnable& runnable, const Tensors& at) {
      (*context).run(model, runnable, at);
    });
  }

  std::vector<Tensor> run(const std::vector<Tensor>& given) {
    std::vector<Tensor> made = outputs_for(given, inputs, outputs, !batches.empty());
    const std::vector<Input> in(given.begin(), given.end());
    const std::vector<Output> out(made.begin(), made.end());
    run(in.data(), in.size(), out.data(), out.size());
    return made;
  }

  Model model;
  int threads;
  Contexts contexts;
  std::vector<std::int64_t> batches;
  std::vector<TensorInfo> inputs, outputs;
};

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_STATE_HPP_
