// What may go wrong, as one exception with a code.
#ifndef GSB_TVM_ERROR_HPP_
#define GSB_TVM_ERROR_HPP_

#include <stdexcept>
#include <string>

namespace gsb_tvm {

enum class ErrorCode {
  file,          // missing, unreadable, or nothing that gsb_tvm made
  damaged,       // cut off, or changed since it was written
  version,       // in another format of artefacts
  architecture,  // made for another processor architecture
  cpu,           // this CPU, or its system, lacks what the code needs
  loader,        // the dynamic loader refuses it
  argument,      // of a call: number, type or size of tensors, number of threads
  memory,        // the system, or a GPU, gives no more
  threads,       // the system starts no more
  gpu,           // there is none, or it is older than the code, or NVIDIA's driver is
  driver,        // NVIDIA's driver refuses or reports something
};

/// A sentence for what, where, found against expected, and the way out.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace gsb_tvm

#endif  // GSB_TVM_ERROR_HPP_
