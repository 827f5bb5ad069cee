// What a GPU does in a program, as the descriptor says it: gsb_tvm/runtime/descriptor.py.
#ifndef GSB_TVM_DETAIL_LAUNCHES_HPP_
#define GSB_TVM_DETAIL_LAUNCHES_HPP_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../tensor.hpp"
#include "lines.hpp"

namespace gsb_tvm::detail {

enum class Where { input, output, memory, constant };

// A tensor of a call by its number, or a byte of a call's memory or of the constants.
struct Place {
  Where where;
  std::uint64_t at;
};

// A function of the GPU's code: its blocks and threads (x, y, z), its pointers.
struct Launch {
  std::string function;
  std::array<unsigned, 3> grid, block;
  std::vector<Place> arguments;
};

// The code of a program for a GPU, and what it does, in order.
struct GpuProgram {
  std::string machine_code, ptx;  // sections
  std::vector<Launch> launches;
  std::vector<Place> results;  // of each output, behind the last launch
};

// All parameters of a function fit into 32764 bytes: CUDA C++ Programming Guide, "Kernel Parameters".
inline constexpr std::uint64_t most_arguments = 32764 / sizeof(void*);

// A place in `inputs` or in `memory_bytes` of memory; what reads constants knows how many there are.
inline Place read_place(Lines& lines, const std::vector<TensorInfo>& inputs,
                        std::size_t memory_bytes) {
  const std::string where(lines.word());
  if (where == "constant") return {Where::constant, lines.number()};
  if (where == "memory") return {Where::memory, lines.number(memory_bytes)};
  if (where != "input") lines.fail("\"" + where + "\" is no place");
  const std::uint64_t number = lines.number();
  if (number >= inputs.size()) lines.fail("there is no input " + std::to_string(number));
  return {Where::input, number};
}

inline Launch read_launch(Lines& lines, const std::vector<TensorInfo>& inputs,
                          std::size_t memory_bytes) {
  Launch launch;
  launch.function = lines.word();
  for (std::array<unsigned, 3>* sizes : {&launch.grid, &launch.block})
    for (unsigned& size : *sizes) size = static_cast<unsigned>(lines.number(INT32_MAX));
  for (std::uint64_t left = lines.number(most_arguments); left > 0; --left)
    launch.arguments.push_back(read_place(lines, inputs, memory_bytes));
  lines.end_line();
  return launch;
}

// Bytes from `place` on that belong to it, as far as the descriptor knows.
inline std::size_t bytes_at(const Place& place, const std::vector<TensorInfo>& inputs,
                            std::size_t memory_bytes) {
  if (place.where == Where::input)
    return inputs[static_cast<std::size_t>(place.at)].size_bytes();
  return place.where == Where::memory ? memory_bytes - static_cast<std::size_t>(place.at)
                                      : most_bytes;
}

inline Place read_result(Lines& lines, const std::vector<TensorInfo>& inputs,
                         std::size_t memory_bytes, const TensorInfo& output) {
  lines.expect("result");
  const Place place = read_place(lines, inputs, memory_bytes);
  lines.end_line();
  if (output.size_bytes() > bytes_at(place, inputs, memory_bytes))
    lines.fail("\"" + output.name + "\" is larger than where it is");
  return place;
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_LAUNCHES_HPP_
