// Memory of the GPU in which tensors of the host stand for the length of a call.
#ifndef GSB_TVM_DETAIL_CUDA_STAGING_HPP_
#define GSB_TVM_DETAIL_CUDA_STAGING_HPP_

#include <cstddef>
#include <iterator>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "device.hpp"

namespace gsb_tvm::detail::cuda {

// Keeps memory from call to call: as many pieces as were ever lent at the same time.
class Staging {
  using Free = std::multimap<std::size_t, Memory>;  // by size

 public:
  // `device` must outlive it.
  explicit Staging(const Device& device) : device_(device) {}

  using Piece = Free::node_type;

  // At least `bytes` bytes, in the device's context. Throws Error.
  Piece take(std::size_t bytes) {
    Piece found = taken(bytes);
    if (!found.empty() && found.key() >= bytes) return found;
    found = Piece();  // goes before a larger one is asked for
    Free made;
    made.emplace(bytes, device_.allocated(bytes));
    return made.extract(made.begin());
  }

  void give_back(Piece piece) noexcept {
    const std::lock_guard<std::mutex> lock(taken_);
    free_.insert(std::move(piece));
  }

 private:
  // The smallest that is large enough, else the largest, where any is free.
  Piece taken(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(taken_);
    if (free_.empty()) return Piece();
    const auto found = free_.lower_bound(bytes);
    return free_.extract(found == free_.end() ? std::prev(found) : found);
  }

  const Device& device_;
  std::mutex taken_;
  Free free_;
};

// Copies of a call's tensors on the host, there and back.
class Copies {
 public:
  Copies(Staging& staging, Stream stream) : staging_(staging), stream_(stream) {}
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;
  // Whatever became of the call, nothing in the stream uses the copies or the host's memory then.
  ~Copies() {
    if (pieces_.empty()) return;
    driver().synchronize.result(stream_);
    for (Staging::Piece& piece : pieces_) staging_.give_back(std::move(piece));
  }

  // A place on the GPU that the stream fills with a tensor.
  void* uploaded(const void* data, std::size_t bytes) {
    const Address made = place(bytes);
    if (bytes) driver()(driver().upload, made, data, bytes, stream_);
    return pointer(made);
  }

  // A place on the GPU for a tensor that `finish` brings to `data`.
  void* downloaded(void* data, std::size_t bytes) {
    const Address made = place(bytes);
    if (bytes) downloads_.push_back({made, data, bytes});
    return pointer(made);
  }

  // Copy what the call has made, and wait for it. Throws Error.
  void finish() const {
    if (pieces_.empty()) return;
    for (const Download& each : downloads_)
      driver()(driver().download, each.target, each.source, each.bytes, stream_);
    driver()(driver().synchronize, stream_);
  }

 private:
  struct Download {
    Address source;
    void* target;
    std::size_t bytes;
  };

  Address place(std::size_t bytes) {
    pieces_.push_back(staging_.take(bytes));
    return pieces_.back().mapped().get();
  }

  Staging& staging_;
  Stream stream_;
  std::vector<Staging::Piece> pieces_;
  std::vector<Download> downloads_;
};

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_STAGING_HPP_
