// A checked and loaded artefact: its programs, each with the function that runs it.
#ifndef GSB_TVM_DETAIL_MODEL_HPP_
#define GSB_TVM_DETAIL_MODEL_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "artefact.hpp"
#include "entry.hpp"
#include "library.hpp"

namespace gsb_tvm::detail {

struct Runnable {
  Program program;
  Entry entry;

  std::size_t tensors() const noexcept { return program.inputs.size() + program.outputs.size(); }
};

class Model {
 public:
  // Throws Error.
  explicit Model(const File& file) : Model(file.path(), read_cpu_artefact(file)) {}

  const Descriptor& about() const noexcept { return about_; }
  // The largest batch first.
  const std::vector<Runnable>& programs() const noexcept { return programs_; }
  const void* weights() const noexcept { return weights_; }

  // Memory of a call on `parts` threads, whichever program it runs.
  std::size_t memory_bytes(int parts) const noexcept {
    std::size_t most = 0;
    for (const Runnable& runnable : programs_)
      most = std::max(most, runnable.program.memory_bytes(parts));
    return most;
  }

 private:
  Model(const std::string& path, const Artefact& artefact)
      : about_(artefact.descriptor),
        library_(path, artefact.header),
        weights_(library_.symbol(about_.weights)) {
    for (const Program& program : about_.programs) {
      const Runnable made{program, reinterpret_cast<Entry>(library_.symbol(program.symbol))};
      if (made.tensors() > most_tensors)
        throw Error(ErrorCode::argument, path + ": has " + std::to_string(made.tensors()) +
                                             " inputs and outputs, expected at most " +
                                             std::to_string(most_tensors) + ".");
      programs_.push_back(made);
    }
    std::sort(programs_.begin(), programs_.end(), [](const Runnable& one, const Runnable& other) {
      return one.program.batch > other.program.batch;
    });
  }

  Descriptor about_;
  Library library_;
  const void* weights_;
  std::vector<Runnable> programs_;
};

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_MODEL_HPP_
