// What a call reads and writes: memory of the caller's.
#ifndef GSB_TVM_VIEWS_HPP_
#define GSB_TVM_VIEWS_HPP_

#include <cstddef>
#include <type_traits>
#include <utility>

#include "dtype.hpp"

namespace gsb_tvm {

namespace detail {

// Of a container that has data() and size().
template <class Container, class = decltype(std::declval<Container&>().size())>
using Element = std::remove_pointer_t<decltype(std::declval<Container&>().data())>;

template <class T>
using IfWritable = std::enable_if_t<!std::is_const_v<T>>;

}  // namespace detail

/// A dense tensor to read: a container, an array, or a pointer and a number of elements.
///
/// Alive until the call returns.
class Input {
 public:
  template <class T>
  Input(const T* data, std::size_t count) noexcept
      : Input(data, count * sizeof(T), dtype_of<T>(), true) {}
  template <class T, std::size_t Count>
  Input(const T (&array)[Count]) noexcept : Input(array, Count) {}
  template <class Container, class = detail::Element<const Container>>
  Input(const Container& container) noexcept : Input(container.data(), container.size()) {}

  Input(const void* data, std::size_t size_bytes, Dtype dtype) noexcept
      : Input(data, size_bytes, dtype, true) {}

  /// Bytes of whatever dtype the model takes.
  static Input bytes(const void* data, std::size_t size) noexcept {
    return Input(data, size, Dtype::uint8, false);
  }

  const void* data() const noexcept { return data_; }
  std::size_t size_bytes() const noexcept { return size_bytes_; }
  Dtype dtype() const noexcept { return dtype_; }
  /// Whether the elements may stand for a tensor of dtype `wanted`.
  bool stands_for(Dtype wanted) const noexcept {
    return !is_typed_ || gsb_tvm::stands_for(dtype_, wanted);
  }

 private:
  Input(const void* data, std::size_t size_bytes, Dtype dtype, bool is_typed) noexcept
      : data_(data), size_bytes_(size_bytes), dtype_(dtype), is_typed_(is_typed) {}

  const void* data_;
  std::size_t size_bytes_;
  Dtype dtype_;
  bool is_typed_;
};

/// A dense tensor to write: as Input, but not const.
class Output {
 public:
  template <class T, class = detail::IfWritable<T>>
  Output(T* data, std::size_t count) noexcept : data_(data), view_(data, count) {}
  template <class T, std::size_t Count, class = detail::IfWritable<T>>
  Output(T (&array)[Count]) noexcept : Output(array, Count) {}
  template <class Container, class = detail::IfWritable<detail::Element<Container>>>
  Output(Container&& container) noexcept : Output(container.data(), container.size()) {}

  Output(void* data, std::size_t size_bytes, Dtype dtype) noexcept
      : data_(data), view_(data, size_bytes, dtype) {}

  /// Bytes of whatever dtype the model gives.
  static Output bytes(void* data, std::size_t size) noexcept {
    return Output(data, Input::bytes(data, size));
  }

  void* data() const noexcept { return data_; }
  /// The same memory, to read.
  const Input& view() const noexcept { return view_; }

 private:
  Output(void* data, Input view) noexcept : data_(data), view_(view) {}

  void* data_;
  Input view_;
};

}  // namespace gsb_tvm

#endif  // GSB_TVM_VIEWS_HPP_
