// As many contexts as there ever were calls at the same time.
#ifndef GSB_TVM_DETAIL_CONTEXTS_HPP_
#define GSB_TVM_DETAIL_CONTEXTS_HPP_

#include <atomic>
#include <utility>

#include "context.hpp"
#include "model.hpp"

namespace gsb_tvm::detail {

// A list that only grows, so that no lock is needed: a process that is forked while another thread
// holds one would wait for it for ever. What was taken then stays taken in that process.
class Contexts {
  struct Place {
    Context context;
    std::atomic<bool> is_taken;
    Place* next;
  };

 public:
  // `model` must outlive it. Throws Error.
  Contexts(const Model& model, int threads) : model_(model), threads_(threads) {
    give_back(made());
  }
  Contexts(const Contexts&) = delete;
  Contexts& operator=(const Contexts&) = delete;
  ~Contexts() {
    for (Place* place = first_; place;) delete std::exchange(place, place->next);
  }

  // A context that goes back where it came from. Throws Error.
  class Lease {
   public:
    explicit Lease(Contexts& from) : place_(from.taken()) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { give_back(place_); }
    Context& operator*() const noexcept { return place_.context; }

   private:
    Place& place_;
  };

 private:
  Place& taken() {
    for (Place* place = first_; place; place = place->next)
      if (!place->is_taken.load(std::memory_order_relaxed) &&
          !place->is_taken.exchange(true, std::memory_order_acquire))
        return *place;
    return made();
  }

  // A new context, which is taken.
  Place& made() {
    Place* const place = new Place{Context(model_, threads_), {true}, first_};
    while (!first_.compare_exchange_weak(place->next, place)) {
    }
    return *place;
  }

  static void give_back(Place& place) noexcept {
    place.is_taken.store(false, std::memory_order_release);
  }

  const Model& model_;
  int threads_;
  std::atomic<Place*> first_{nullptr};
};

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_CONTEXTS_HPP_
