// As many contexts as there ever were calls at the same time.
#ifndef GSB_TVM_DETAIL_CONTEXTS_HPP_
#define GSB_TVM_DETAIL_CONTEXTS_HPP_

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "context.hpp"
#include "model.hpp"

namespace gsb_tvm::detail {

class Contexts {
 public:
  // `model` must outlive it.
  Contexts(const Model& model, int threads) : model_(model), threads_(threads) {
    give_back(made());
  }

  // A context that goes back where it came from.
  class Lease {
   public:
    explicit Lease(Contexts& from) : from_(from), context_(from.take()) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { from_.give_back(std::move(context_)); }
    Context& operator*() const noexcept { return *context_; }

   private:
    Contexts& from_;
    std::unique_ptr<Context> context_;
  };

 private:
  std::unique_ptr<Context> made() {
    auto context = std::make_unique<Context>(model_, threads_);
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.reserve(++count_);  // so that giving back never allocates
    return context;
  }

  std::unique_ptr<Context> take() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<Context> context = std::move(free_.back());
        free_.pop_back();
        return context;
      }
    }
    return made();
  }

  void give_back(std::unique_ptr<Context> context) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(context));
  }

  const Model& model_;
  int threads_;
  std::mutex mutex_;
  std::size_t count_ = 0;
  std::vector<std::unique_ptr<Context>> free_;
};

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_CONTEXTS_HPP_
