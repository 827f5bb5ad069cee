// Memory and threads of one call at a time.
#ifndef GSB_TVM_DETAIL_CONTEXT_HPP_
#define GSB_TVM_DETAIL_CONTEXT_HPP_

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <system_error>

#include "../error.hpp"
#include "../parts.h"
#include "entry.hpp"
#include "model.hpp"

namespace gsb_tvm::detail {

class Context {
 public:
  // For calls of the programs of `model` on `threads` threads. Throws Error.
  Context(const Model& model, int threads)
      : threads_(threads), memory_(allocated(model, threads)), pool_(started(threads)) {}

  // Run a program. The threads of a process that was forked stayed with its parent: it gets new
  // ones. Throws Error where the system starts none.
  void run(const Model& model, const Runnable& runnable, const Tensors& tensors) {
    Call call{callers[runnable.tensors()], runnable.entry, &tensors, memory_.get(),
              model.weights()};
    if (!pool_) {
      do_part(&call, 0, 1);
      return;
    }
    // The parts count the barriers that they have passed, from zero in each call.
    const Program& program = runnable.program;
    std::memset(memory_.get() + program.fixed_bytes - program.epochs_bytes, 0,
                program.epochs_bytes);
    if (gsb_pool_run(pool_.get(), do_part, &call) == 0) return;
    pool_ = started(threads_);
    gsb_pool_run(pool_.get(), do_part, &call);
  }

 private:
  struct Call {
    Caller caller;
    Entry entry;
    const Tensors* tensors;
    void* memory;
    const void* weights;
  };

  struct Free {
    std::size_t alignment;
    void operator()(unsigned char* memory) const noexcept {
      ::operator delete(memory, std::align_val_t(alignment));
    }
  };
  using Memory = std::unique_ptr<unsigned char, Free>;

  struct Destroy {
    void operator()(gsb_pool* pool) const noexcept { gsb_pool_destroy(pool); }
  };
  using Pool = std::unique_ptr<gsb_pool, Destroy>;

  static void do_part(void* argument, std::int32_t part, std::int32_t parts) {
    const Call& call = *static_cast<const Call*>(argument);
    call.caller(call.entry, *call.tensors, call.memory, call.weights, part, parts);
  }

  static Memory allocated(const Model& model, int threads) {
    const std::size_t alignment = model.about().alignment;
    const std::size_t bytes = model.memory_bytes(threads);
    void* const made = ::operator new(bytes, std::align_val_t(alignment), std::nothrow);
    if (!made)
      throw Error(ErrorCode::memory, model.about().model + ": a call on " +
                                         std::to_string(threads) + " threads needs " +
                                         std::to_string(bytes) +
                                         " bytes of memory, which the system does not give.");
    return Memory(static_cast<unsigned char*>(made), Free{alignment});
  }

  static Pool started(int threads) {
    gsb_pool* made = nullptr;
    const int error = threads > 1 ? gsb_pool_create(&made, threads) : 0;
    if (error)
      throw Error(error == ENOMEM ? ErrorCode::memory : ErrorCode::threads,
                  "the system does not start " + std::to_string(threads - 1) + " threads (" +
                      std::generic_category().message(error) + ").");
    return Pool(made);
  }

  int threads_;
  Memory memory_;
  Pool pool_;
};

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_CONTEXT_HPP_
