// Cutting a call into calls of the batches that the artefact has code for.
#ifndef GSB_TVM_DETAIL_BATCHES_HPP_
#define GSB_TVM_DETAIL_BATCHES_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "checks.hpp"
#include "descriptor.hpp"

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

// The batches of programs, ascending; none where shapes are as they stand.
inline std::vector<std::int64_t> batches(const std::vector<Program>& programs) {
  std::vector<std::int64_t> made;
  for (const Program& program : programs)
    if (program.batch) made.push_back(program.batch);
  std::sort(made.begin(), made.end());
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

// Go on to the images behind those of a program.
template <class Tensors>
void advance(Tensors& tensors, const Program& program) {
  std::size_t at = 0;
  for (const std::vector<TensorInfo>* group : {&program.inputs, &program.outputs})
    for (const TensorInfo& tensor : *group) {
      // Pointers of nothing stay null.
      if (tensor.count) tensors[at] = static_cast<char*>(tensors[at]) + tensor.size_bytes();
      ++at;
    }
}

// Let `run` run `batch` images, which can be cut, or a call whose shapes are as they stand:
// inputs, then outputs. Of the programs the one of the largest batch stands first.
template <class Runnable, class Tensors, class Run>
void run_pieces(const std::vector<Runnable>& runnables, Tensors tensors, std::int64_t batch,
                const Run& run) {
  for (const Runnable& runnable : runnables) {
    const Program& program = runnable.program;
    if (program.batch == 0) {
      run(runnable, tensors);
      return;
    }
    for (; batch >= program.batch; batch -= program.batch) {
      run(runnable, tensors);
      advance(tensors, program);
    }
  }
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_BATCHES_HPP_
