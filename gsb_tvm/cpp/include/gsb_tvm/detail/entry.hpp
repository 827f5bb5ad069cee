// Calling the function of a program, which takes as many pointers as the model has tensors.
#ifndef GSB_TVM_DETAIL_ENTRY_HPP_
#define GSB_TVM_DETAIL_ENTRY_HPP_

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace gsb_tvm::detail {

inline constexpr std::size_t most_tensors = 64;

// Of any type: each caller knows the type that it calls it by.
using Entry = void (*)();
using Tensors = std::array<void*, most_tensors>;
using Caller = void (*)(Entry, const Tensors&, void* memory, const void* weights, std::int32_t part,
                        std::int32_t parts);

template <std::size_t>
using Pointer = void*;

// Calls an entry of sizeof...(I) tensors: gsb_tvm/runtime/entry.py has its parameters.
template <std::size_t... I>
struct CallerOf {
  using Function = std::int32_t (*)(Pointer<I>..., void*, const void*, std::int64_t*, std::int32_t,
                                    std::int32_t, std::int32_t);

  static void call(Entry entry, const Tensors& tensors, void* memory, const void* weights,
                   std::int32_t part, std::int32_t parts) {
    (void)tensors;
    reinterpret_cast<Function>(entry)(tensors[I]..., memory, weights, nullptr, part, parts, 0);
  }
};

template <std::size_t... I>
constexpr Caller caller(std::index_sequence<I...>) noexcept {
  return &CallerOf<I...>::call;
}

template <std::size_t... Counts>
constexpr std::array<Caller, sizeof...(Counts)> make_callers(
    std::index_sequence<Counts...>) noexcept {
  return {caller(std::make_index_sequence<Counts>())...};
}

// By number of tensors.
inline constexpr std::array<Caller, most_tensors + 1> callers =
    make_callers(std::make_index_sequence<most_tensors + 1>());

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_ENTRY_HPP_
