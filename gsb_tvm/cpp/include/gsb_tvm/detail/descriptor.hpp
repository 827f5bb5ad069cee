// What an artefact says of itself, as a program needs it.
#ifndef GSB_TVM_DETAIL_DESCRIPTOR_HPP_
#define GSB_TVM_DETAIL_DESCRIPTOR_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../parts.h"
#include "../tensor.hpp"
#include "launches.hpp"
#include "lines.hpp"

namespace gsb_tvm::detail {

struct Feature {
  std::string name;
  std::uint16_t word;
  std::uint8_t bit;
  std::uint32_t xcr0;
};

// The model for one batch: a function of the artefact or launches of a GPU, and what a call needs.
struct Program {
  std::string symbol;
  std::int64_t batch;        // 0 for shapes as they stand
  std::size_t fixed_bytes;   // memory of all parts, the epochs at its end
  std::size_t part_bytes;    // memory of each part beyond
  std::size_t epochs_bytes;  // zero when a call begins
  std::vector<TensorInfo> inputs, outputs;
  GpuProgram gpu;  // empty for a CPU

  std::size_t memory_bytes(int parts) const noexcept {
    return fixed_bytes + static_cast<std::size_t>(parts) * part_bytes;
  }
};

using Capability = std::pair<int, int>;  // of a GPU: major and minor number

struct Descriptor {
  std::string compiler, target, cpu, arch, model, weights;
  std::string gpu;  // architecture; empty for a CPU
  Capability capability = {};  // that of `gpu`
  std::size_t alignment;
  std::vector<Feature> features;
  std::vector<Program> programs;
};

inline TensorInfo read_tensor(Lines& lines) {
  const std::string word(lines.word());
  const std::optional<Dtype> dtype = dtype_named(word);
  if (!dtype) lines.fail("dtype \"" + word + "\" is not known");
  TensorInfo tensor{"", *dtype, {}, 0};
  for (std::uint64_t rank = lines.number(64); rank > 0; --rank)
    tensor.shape.push_back(static_cast<std::int64_t>(lines.number()));
  const std::optional<std::size_t> count = count_of(*dtype, tensor.shape);
  if (!count) lines.fail("a tensor is too large");
  tensor.count = *count;
  tensor.name = lines.rest();
  return tensor;
}

inline void check_batch(Lines& lines, const Program& program,
                        const std::vector<TensorInfo>& tensors) {
  for (const TensorInfo& tensor : tensors)
    if (program.batch && (tensor.shape.empty() || tensor.shape[0] != program.batch))
      lines.fail("\"" + tensor.name + "\" is not of the program's batch");
}

inline void read_code(Lines& lines, GpuProgram& gpu) {
  lines.expect("code");
  gpu.machine_code = lines.word();
  gpu.ptx = lines.word();
  lines.end_line();
}

inline void read_launches(Lines& lines, Program& program) {
  GpuProgram& gpu = program.gpu;
  while (lines.take("launch"))
    gpu.launches.push_back(read_launch(lines, program.inputs, program.fixed_bytes));
  for (const TensorInfo& output : program.outputs)
    gpu.results.push_back(read_result(lines, program.inputs, program.fixed_bytes, output));
}

inline Program read_program(Lines& lines, bool is_for_gpu) {
  Program program;
  program.symbol = lines.word();
  program.batch = static_cast<std::int64_t>(lines.number());
  lines.end_line();
  if (is_for_gpu) read_code(lines, program.gpu);
  lines.expect("memory");
  program.fixed_bytes = lines.number();
  program.part_bytes = lines.number(most_bytes / GSB_MOST_PARTS);
  program.epochs_bytes = lines.number(program.fixed_bytes);
  lines.end_line();
  while (lines.take("input")) program.inputs.push_back(read_tensor(lines));
  while (lines.take("output")) program.outputs.push_back(read_tensor(lines));
  check_batch(lines, program, program.inputs);
  check_batch(lines, program, program.outputs);
  if (is_for_gpu) read_launches(lines, program);
  return program;
}

// Tensors without their first extents are the same in all programs of an artefact.
inline bool is_same_image(const TensorInfo& one, const TensorInfo& other) {
  return one.name == other.name && one.dtype == other.dtype &&
         one.shape.size() == other.shape.size() &&
         std::equal(one.shape.begin() + 1, one.shape.end(), other.shape.begin() + 1);
}

inline void check_programs(Lines& lines, const std::vector<Program>& programs) {
  if (programs.empty()) lines.fail("no program");
  if (programs.size() == 1) return;
  for (const Program& program : programs) {
    const auto same = [](const std::vector<TensorInfo>& one, const std::vector<TensorInfo>& other) {
      return std::equal(one.begin(), one.end(), other.begin(), other.end(), is_same_image);
    };
    if (program.batch == 0 || !same(program.inputs, programs[0].inputs) ||
        !same(program.outputs, programs[0].outputs))
      lines.fail("its programs are of different models");
  }
}

inline Feature read_feature(Lines& lines) {
  Feature feature;
  feature.name = lines.word();
  feature.word = static_cast<std::uint16_t>(lines.number(UINT16_MAX));
  feature.bit = static_cast<std::uint8_t>(lines.number(UINT8_MAX));
  feature.xcr0 = static_cast<std::uint32_t>(lines.number(UINT32_MAX));
  lines.end_line();
  return feature;
}

inline void read_gpu(Lines& lines, Descriptor& made) {
  made.gpu = lines.word();
  made.capability.first = static_cast<int>(lines.number(UINT8_MAX));
  made.capability.second = static_cast<int>(lines.number(UINT8_MAX));
  lines.end_line();
}

inline Descriptor read_descriptor(std::string_view text, const std::string& path) {
  Lines lines(text, path);
  Descriptor made;
  const auto field = [&](std::string_view key) {
    lines.expect(key);
    return lines.rest();
  };
  made.compiler = field("compiler");
  made.target = field("target");
  made.cpu = field("cpu");
  made.arch = field("arch");
  if (lines.take("gpu")) read_gpu(lines, made);
  while (lines.take("feature")) made.features.push_back(read_feature(lines));
  made.model = field("model");
  lines.expect("alignment");
  made.alignment = lines.number(4096);
  lines.end_line();
  if (made.alignment == 0 || made.alignment & (made.alignment - 1))
    lines.fail("an alignment that is no power of two");
  made.weights = field("weights");
  while (lines.take("program"))
    made.programs.push_back(read_program(lines, !made.gpu.empty()));
  if (!lines.is_empty()) lines.fail("a line that is not known");
  check_programs(lines, made.programs);
  return made;
}

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_DESCRIPTOR_HPP_
