// What the calls on a stream write, kept from call to call.
#ifndef GSB_TVM_DETAIL_CUDA_ROOMS_HPP_
#define GSB_TVM_DETAIL_CUDA_ROOMS_HPP_

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "graph.hpp"
#include "model.hpp"

namespace gsb_tvm::detail::cuda {

// Memory and graphs. One thread at a time may put work into it; the GPU does that in order, whatever
// the streams: a handle may have become that of another stream since the last call.
class Room {
 public:
  // In the context of `device`, which must outlive it, as must `model`. Throws Error.
  Room(const Device& device, const Model& model)
      : context_(device.context()), model_(model), memory_(device.allocated(model.memory_bytes())) {
    Event event = nullptr;
    driver()(driver().make_event, &event, without_timing);
    done_ = Owned<Event>(context_, event, driver().destroy_event);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() {
    const Current current(context_, std::nothrow);
    driver().synchronize_event.result(done_.get());
  }

  // A call's time with the room: it begins behind the work of calls before.
  class Turn {
   public:
    Turn(Room& room, Stream stream) : room_(room), lock_(room.taken_), stream_(stream) {
      driver()(driver().wait_for, stream, room.done_.get(), 0);
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() { driver().record.result(room_.done_.get(), stream_); }

   private:
    Room& room_;
    std::lock_guard<std::mutex> lock_;
    Stream stream_;
  };

  // Put a program into a stream, as a graph. Only in one's turn.
  void run(const Runnable& runnable, const std::vector<void*>& tensors, Stream stream) {
    const Bases where = bases(runnable, tensors);
    auto known = graphs_.find(&runnable);
    if (known == graphs_.end())
      known = graphs_.try_emplace(&runnable, context_, runnable.actions, where).first;
    else
      known->second.change(where);
    known->second.launch(stream);
  }

  // Put its actions into a stream that somebody records.
  void enqueue(const Runnable& runnable, const std::vector<void*>& tensors, Stream stream) const {
    const Bases where = bases(runnable, tensors);
    for (const Action& action : runnable.actions) cuda::enqueue(action, where.of(action), stream);
  }

 private:
  Bases bases(const Runnable& runnable, const std::vector<void*>& tensors) const noexcept {
    const Address memory = memory_.get() + runnable.memory_at;
    return {tensors, runnable.program.inputs.size(), memory, model_.constants()};
  }

  Context context_;
  const Model& model_;
  Memory memory_;
  Owned<Event> done_;
  std::mutex taken_;
  std::map<const Runnable*, Recorded> graphs_;
};

// The rooms of a session, one for each stream that calls came on.
class Rooms {
 public:
  // They must outlive it.
  Rooms(const Device& device, const Model& model) : device_(device), model_(model) {}

  // The room of a stream; new where there was none. Throws Error.
  Room& of(Stream stream) {
    const std::lock_guard<std::mutex> lock(taken_);
    std::unique_ptr<Room>& room = rooms_[key(stream)];
    if (!room) room = std::make_unique<Room>(device_, model_);
    return *room;
  }

 private:
  using Key = std::pair<Stream, std::thread::id>;

  static Key key(Stream stream) {
    return {stream, stream == stream_of_thread() ? std::this_thread::get_id() : std::thread::id()};
  }

  const Device& device_;
  const Model& model_;
  std::mutex taken_;
  std::map<Key, std::unique_ptr<Room>> rooms_;
};

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_ROOMS_HPP_
