// Calls on tensors that have shapes of their own.
#ifndef GSB_TVM_DETAIL_WHOLE_TENSORS_HPP_
#define GSB_TVM_DETAIL_WHOLE_TENSORS_HPP_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../tensor.hpp"
#include "checks.hpp"

namespace gsb_tvm::detail {

// Of any batch where `is_open`: the shape of `batch` images like `image`.
inline std::vector<std::int64_t> shape_of(const TensorInfo& image, bool is_open,
                                          std::int64_t batch) {
  std::vector<std::int64_t> shape = image.shape;
  if (is_open) shape[0] = batch;
  return shape;
}

// Outputs for `given`, whose shapes are checked. Throws Error.
inline std::vector<Tensor> outputs_for(const std::vector<Tensor>& given,
                                       const std::vector<TensorInfo>& inputs,
                                       const std::vector<TensorInfo>& outputs, bool is_open) {
  check_number(given.size(), inputs.size(), "inputs");
  const bool has_batch = is_open && !given.empty() && !given[0].shape().empty();
  const std::int64_t batch = has_batch ? given[0].shape()[0] : 1;
  for (std::size_t i = 0; i < given.size(); ++i)
    check_shape(given[i].shape(), inputs[i], "input", shape_of(inputs[i], is_open, batch));
  std::vector<Tensor> made;
  for (const TensorInfo& output : outputs)
    made.emplace_back(output.dtype, shape_of(output, is_open, batch));
  return made;
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_WHOLE_TENSORS_HPP_
