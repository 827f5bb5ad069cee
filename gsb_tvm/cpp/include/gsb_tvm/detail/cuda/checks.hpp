// Whether tensors on a GPU are the model's. What is wrong throws Error.
#ifndef GSB_TVM_DETAIL_CUDA_CHECKS_HPP_
#define GSB_TVM_DETAIL_CUDA_CHECKS_HPP_

#include <cstddef>
#include <cstdint>
#include <string>

#include "../../cuda_views.hpp"
#include "../../tensor.hpp"
#include "../checks.hpp"
#include "../whole_tensors.hpp"
#include "device.hpp"

namespace gsb_tvm::detail::cuda {

// Images in a tensor, at least one, of a model whose batch is open.
inline std::int64_t images_in(const DeviceInput& tensor, const TensorInfo& image) {
  if (tensor.shape().empty() || tensor.shape()[0] < 1)
    refuse("input \"" + image.name + "\": shape (" + listed(tensor.shape()) +
           ") is given, expected one image or more.");
  return tensor.shape()[0];
}

// That the elements are in memory of the GPU, whose context is the calling thread's.
inline void check_place(const DeviceInput& tensor, const Device& device,
                        const std::string& which) {
  int ordinal = 0;
  const Result result =
      driver().pointer_attribute.result(&ordinal, pointer_ordinal, address(tensor.data()));
  if (result != success) refuse(which + "the data is in no memory of a GPU.");
  if (ordinal != device.ordinal())
    refuse(which + "the data is on GPU " + std::to_string(ordinal) + ", and the model on GPU " +
           std::to_string(device.ordinal()) + ". Move one of them.");
}

// Kernels read inputs in words of at most 16 bytes; outputs are copied.
inline constexpr std::size_t input_alignment = 16;

// A tensor of `batch` images, or of the shape that stands in the model, at a multiple of `alignment`
// bytes.
inline void check_tensor(const DeviceInput& tensor, const TensorInfo& image, const char* kind,
                         std::size_t alignment, bool is_open, std::int64_t batch,
                         const Device& device) {
  const std::string which = std::string(kind) + " \"" + image.name + "\": ";
  if (!stands_for(tensor.dtype(), image.dtype))
    refuse(which + "elements of " + name(tensor.dtype()) + " are given, expected " +
           name(image.dtype) + ".");
  check_shape(tensor.shape(), image, kind, shape_of(image, is_open, batch));
  if (image.count == 0) return;
  if (address(tensor.data()) % alignment)
    refuse(which + "the data is not at a multiple of " + std::to_string(alignment) + " bytes.");
  check_place(tensor, device, which);
}

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_CHECKS_HPP_
