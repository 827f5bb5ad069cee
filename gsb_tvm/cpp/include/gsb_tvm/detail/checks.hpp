// Whether the tensors of a call are the model's. What is wrong throws Error.
#ifndef GSB_TVM_DETAIL_CHECKS_HPP_
#define GSB_TVM_DETAIL_CHECKS_HPP_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../error.hpp"
#include "../tensor.hpp"
#include "../views.hpp"

namespace gsb_tvm::detail {

[[noreturn]] inline void refuse(const std::string& what) { throw Error(ErrorCode::argument, what); }

inline void check_number(std::size_t given, std::size_t expected, const char* kind) {
  if (given != expected)
    refuse(std::to_string(given) + " " + kind + " are given, expected " + std::to_string(expected) +
           ".");
}

inline std::string listed(const std::vector<std::int64_t>& numbers) {
  std::string made;
  for (const std::int64_t number : numbers)
    made += (made.empty() ? "" : ", ") + std::to_string(number);
  return made;
}

// Images in a view, at least one, of a tensor whose images are `image`.
inline std::int64_t images_in(const Input& view, const TensorInfo& image) {
  const std::size_t size = image.size_bytes();
  if (size == 0) return 1;
  if (view.size_bytes() == 0 || view.size_bytes() % size)
    refuse("input \"" + image.name + "\": " + std::to_string(view.size_bytes()) +
           " bytes are given, expected " + std::to_string(size) + " for each image.");
  return static_cast<std::int64_t>(view.size_bytes() / size);
}

// A view of `batch` images.
inline void check_view(const Input& view, const TensorInfo& image, const char* kind,
                       std::int64_t batch) {
  const std::string which = std::string(kind) + " \"" + image.name + "\": ";
  if (!view.stands_for(image.dtype))
    refuse(which + "elements of " + name(view.dtype()) + " are given, expected " +
           name(image.dtype) + ".");
  const std::size_t expected = image.size_bytes() * static_cast<std::size_t>(batch);
  if (view.size_bytes() != expected)
    refuse(which + std::to_string(view.size_bytes()) + " bytes are given, expected " +
           std::to_string(expected) + ".");
  if (expected && !view.data()) refuse(which + "the data is null.");
  if (reinterpret_cast<std::uintptr_t>(view.data()) % size_of(image.dtype))
    refuse(which + "the data is not aligned for " + name(image.dtype) + ".");
}

inline void check_shape(const std::vector<std::int64_t>& shape, const TensorInfo& info,
                        const char* kind, const std::vector<std::int64_t>& expected) {
  if (shape != expected)
    refuse(std::string(kind) + " \"" + info.name + "\": shape (" + listed(shape) +
           ") is given, expected (" + listed(expected) + ").");
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_CHECKS_HPP_
