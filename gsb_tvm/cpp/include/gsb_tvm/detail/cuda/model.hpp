// A checked artefact on a GPU: its code, its constants, and what each program does.
#ifndef GSB_TVM_DETAIL_CUDA_MODEL_HPP_
#define GSB_TVM_DETAIL_CUDA_MODEL_HPP_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../artefact.hpp"
#include "../elf.hpp"
#include "checks.hpp"
#include "device.hpp"

namespace gsb_tvm::detail::cuda {

// A launch, or a copy of an input or an output, and the places that its addresses are of: a launch's
// pointers, or target and source of a copy.
struct Action {
  Function function;  // null for a copy
  std::array<unsigned, 3> grid, block;
  std::size_t bytes;  // of a copy
  std::vector<Place> places;

  // Whether it touches tensors of a call.
  bool moves() const noexcept {
    return std::any_of(places.begin(), places.end(), [](const Place& place) {
      return place.where == Where::input || place.where == Where::output;
    });
  }
};

struct Runnable {
  Program program;
  Owned<Module> code;
  std::vector<Action> actions;   // in order
  std::size_t memory_bytes = 0;  // what they write
  std::size_t memory_at = 0;     // where that begins among the memory of all programs
};

// Read an artefact for a GPU. Throws Error.
inline Artefact read_gpu_artefact(const File& file) {
  Artefact made = read_artefact(file);
  if (made.descriptor.gpu.empty())
    file.fail(ErrorCode::architecture,
              "made for a CPU (" + made.descriptor.cpu +
                  "). Load it with gsb_tvm::Session, or compile the model with --target cuda.");
  return made;
}

inline std::vector<char> read_whole(const File& file, const std::string& section) {
  const Section found = find_section(file, section);
  std::vector<char> data(static_cast<std::size_t>(found.size));
  file.read(data.data(), data.size(), found.offset);
  return data;
}

class Model {
 public:
  // `device` must outlive it. Throws Error.
  Model(const File& file, Artefact artefact, const Device& device)
      : about_(std::move(artefact.descriptor)) {
    const Current current(device.context());
    upload_constants(file, device);
    for (const Program& program : about_.programs)
      programs_.push_back(runnable(file, program, device));
    std::sort(programs_.begin(), programs_.end(), [](const Runnable& one, const Runnable& other) {
      return one.program.batch > other.program.batch;
    });
    for (Runnable& each : programs_) {
      each.memory_at = memory_bytes_;
      memory_bytes_ += aligned(each.memory_bytes);
    }
  }

  const Descriptor& about() const noexcept { return about_; }
  // The largest batch first.
  const std::vector<Runnable>& programs() const noexcept { return programs_; }
  Address constants() const noexcept { return constants_.get(); }

  // Memory of all programs: each must find zeros where it left zeros.
  std::size_t memory_bytes() const noexcept { return memory_bytes_; }

 private:
  void upload_constants(const File& file, const Device& device) {
    const std::vector<char> data = read_whole(file, about_.weights);
    constants_bytes_ = data.size();
    constants_ = device.uploaded(data.data(), data.size());
  }

  Runnable runnable(const File& file, const Program& program, const Device& device) const {
    Runnable made{program, loaded(file, program, device), {}, program.fixed_bytes};
    const std::map<std::uint64_t, Place> copied = copy_inputs(made);
    for (const Launch& launch : program.gpu.launches) {
      Function function = nullptr;
      driver()(driver().function, &function, made.code.get(), launch.function.c_str());
      std::vector<Place> arguments = launch.arguments;
      for (Place& place : arguments) {
        check(file, place, 0);
        if (place.where != Where::input) continue;
        const auto found = copied.find(place.at);
        if (found != copied.end()) place = found->second;
      }
      made.actions.push_back({function, launch.grid, launch.block, 0, std::move(arguments)});
    }
    for (std::size_t i = 0; i < program.outputs.size(); ++i) {
      const std::size_t bytes = program.outputs[i].size_bytes();
      check(file, program.gpu.results[i], bytes);
      if (bytes)
        made.actions.push_back(
            {nullptr, {}, {}, bytes, {{Where::output, i}, program.gpu.results[i]}});
    }
    return made;
  }

  // Copy inputs whose images fill no whole words: in a call of several programs they may begin between
  // two words, behind the images of the program before. Where copies are, by number of the input.
  static std::map<std::uint64_t, Place> copy_inputs(Runnable& made) {
    std::map<std::uint64_t, Place> copies;
    const std::vector<TensorInfo>& inputs = made.program.inputs;
    if (made.program.batch == 0) return copies;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const std::size_t bytes = inputs[i].size_bytes();
      if (bytes / static_cast<std::size_t>(made.program.batch) % input_alignment == 0) continue;
      const Place copy{Where::memory, aligned(made.memory_bytes)};
      made.actions.push_back({nullptr, {}, {}, bytes, {copy, {Where::input, i}}});
      made.memory_bytes = static_cast<std::size_t>(copy.at) + bytes;
      copies.emplace(i, copy);
    }
    return copies;
  }

  // What the descriptor alone cannot tell: that `bytes` of constants are there.
  void check(const File& file, const Place& place, std::size_t bytes) const {
    if (place.where != Where::constant) return;
    if (place.at > constants_bytes_ || bytes > constants_bytes_ - place.at)
      file.fail(ErrorCode::damaged, "there are no constants at " + std::to_string(place.at) +
                                        ". Compile the model again.");
  }

  // Machine code where the GPU executes it, else PTX, which the driver compiles.
  Owned<Module> loaded(const File& file, const Program& program, const Device& device) const {
    const Capability made = about_.capability, here = device.capability();
    if (made > here) {
      const std::string arch =
          "sm_" + std::to_string(here.first) + std::to_string(here.second);
      file.fail(ErrorCode::gpu, "made for " + about_.gpu + ", and this GPU is " + arch +
                                    ", an older one. Compile the model with --target cuda -arch=" +
                                    arch + ".");
    }
    const bool is_native = made.first == here.first;
    const std::vector<char> image =
        read_whole(file, is_native ? program.gpu.machine_code : program.gpu.ptx);
    if (image.empty() || (!is_native && image.back() != '\0'))
      file.fail(ErrorCode::damaged, "its code for the GPU is cut off. Compile the model again.");
    Module module = nullptr;
    const Result result = driver().load.result(&module, image.data());
    if (result != success)
      file.fail(result == out_of_memory ? ErrorCode::memory : ErrorCode::gpu,
                "GPU " + std::to_string(device.ordinal()) + " refuses the artefact's code (" +
                    driver().name_of(result) + ").");
    return Owned<Module>(device.context(), module, driver().unload);
  }

  // Up to where memory begins, as the driver's own.
  static constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

  Descriptor about_;
  std::size_t constants_bytes_ = 0, memory_bytes_ = 0;
  Memory constants_;
  std::vector<Runnable> programs_;
};

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_MODEL_HPP_
