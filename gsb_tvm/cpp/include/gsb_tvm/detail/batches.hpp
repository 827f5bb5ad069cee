// Cutting a call into calls of the batches that the artefact has code for.
#ifndef GSB_TVM_DETAIL_BATCHES_HPP_
#define GSB_TVM_DETAIL_BATCHES_HPP_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "checks.hpp"
#include "context.hpp"
#include "model.hpp"

namespace gsb_tvm::detail {

// What a program says of its tensors, with one image where it has a batch.
inline std::vector<TensorInfo> images(std::vector<TensorInfo> tensors, std::int64_t batch) {
  if (batch == 0) return tensors;
  for (TensorInfo& tensor : tensors) {
    tensor.shape[0] = 1;
    tensor.count /= static_cast<std::size_t>(batch);
  }
  return tensors;
}

// The batches of a model's programs, ascending; none where shapes are as they stand.
inline std::vector<std::int64_t> batches(const Model& model) {
  std::vector<std::int64_t> made;
  for (const Runnable& runnable : model.programs())
    if (runnable.program.batch) made.insert(made.begin(), runnable.program.batch);
  return made;
}

// The largest piece first, as gsb_tvm/runtime/batches.py cuts, with its sentence: 5 images are 4
// and 1.
inline void check_batch(const std::vector<std::int64_t>& batches, std::int64_t batch) {
  std::int64_t rest = batch;
  for (auto size = batches.rbegin(); size != batches.rend(); ++size) rest %= *size;
  if (rest)
    refuse("a batch of " + std::to_string(batch) + " cannot be cut into batches of " +
           listed(batches) +
           ", always the largest that fits first. Compile the model with --batch 1 among others.");
}

// Run `batch` images, which can be cut, or a call whose shapes are as they stand.
inline void run_pieces(Context& context, const Model& model, Tensors tensors, std::int64_t batch) {
  for (const Runnable& runnable : model.programs()) {
    const Program& program = runnable.program;
    if (program.batch == 0) {
      context.run(model, runnable, tensors);
      return;
    }
    for (; batch >= program.batch; batch -= program.batch) {
      context.run(model, runnable, tensors);
      std::size_t at = 0;
      for (const std::vector<TensorInfo>* group : {&program.inputs, &program.outputs})
        for (const TensorInfo& tensor : *group) {
          // Pointers of nothing stay null.
          if (tensor.count) tensors[at] = static_cast<char*>(tensors[at]) + tensor.size_bytes();
          ++at;
        }
    }
  }
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_BATCHES_HPP_
