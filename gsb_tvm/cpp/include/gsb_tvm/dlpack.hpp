// Tensors of DLPack, by which frameworks lend each other theirs; of whichever dlpack.h the program
// includes, or has the structs of.
#ifndef GSB_TVM_DLPACK_HPP_
#define GSB_TVM_DLPACK_HPP_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cuda_views.hpp"
#include "dtype.hpp"
#include "error.hpp"

namespace gsb_tvm {

namespace detail {

// DLDataTypeCode and DLDeviceType of dlpack.h.
inline constexpr int dl_int = 0, dl_uint = 1, dl_float = 2, dl_bool = 6;
inline constexpr int dl_cuda = 2, dl_cuda_managed = 13;

inline std::optional<Dtype> dtype_of_dlpack(int code, int bits) {
  if (code == dl_bool && bits == 8) return Dtype::boolean;
  const std::string kind = code == dl_int ? "int" : code == dl_uint ? "uint" : "float";
  if (code != dl_int && code != dl_uint && code != dl_float) return std::nullopt;
  return dtype_named(kind + std::to_string(bits));
}

// Whether elements lie one behind the other, in C order; no strides say so, too.
template <class DLTensor>
bool is_dense(const DLTensor& tensor) {
  std::int64_t step = 1;
  for (std::size_t i = static_cast<std::size_t>(tensor.ndim); tensor.strides && i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != step) return false;
    step *= tensor.shape[i];
  }
  return true;
}

}  // namespace detail

/// A DLTensor in a GPU's memory, such as `managed->dl_tensor`, to read or write where it is.
///
/// Remains whose it is: alive until the stream of the call has done what was put into it, and
/// written only where its owner allows it. Throws Error where it is on no GPU, not dense, or of a
/// type that no model has.
template <class DLTensor>
DeviceOutput from_dlpack(const DLTensor& tensor) {
  const auto refuse = [](const std::string& what) {
    throw Error(ErrorCode::argument, "a DLTensor is given " + what);
  };
  const int device = static_cast<int>(tensor.device.device_type);
  if (device != detail::dl_cuda && device != detail::dl_cuda_managed)
    refuse("on a device of type " + std::to_string(device) + ", expected memory of a GPU.");
  const int code = static_cast<int>(tensor.dtype.code), bits = static_cast<int>(tensor.dtype.bits);
  const std::optional<Dtype> dtype = detail::dtype_of_dlpack(code, bits);
  if (!dtype || tensor.dtype.lanes != 1)
    refuse("of type " + std::to_string(code) + " with " + std::to_string(bits) + " bits and " +
           std::to_string(tensor.dtype.lanes) + " lanes, which no model has.");
  if (!detail::is_dense(tensor)) refuse("whose elements do not lie one behind the other.");
  char* const data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  return DeviceOutput(static_cast<void*>(data), *dtype,
                      std::vector<std::int64_t>(tensor.shape, tensor.shape + tensor.ndim));
}

}  // namespace gsb_tvm

#endif  // GSB_TVM_DLPACK_HPP_
