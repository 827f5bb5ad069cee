// The GPU's memory: pages of this process that only work of the GPU may touch.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "world.hpp"

namespace stand_in {

constexpr std::size_t kPage = 4096, kAlignment = 256;
constexpr unsigned char kGuard = 0xC3, kFresh = 0xCD;

inline std::size_t rounded(std::size_t size, std::size_t to) { return (size + to - 1) / to * to; }

inline void protect(const Allocation& each, int how) {
  mprotect(each.mapped + kPage, each.mapped_bytes - 2 * kPage, how);
}

// While it lives the memory can be touched: outside, a program that reads or writes memory of the
// GPU ends by a signal, as it does where there is a GPU.
class Touching {
 public:
  Touching() {
    if (depth_++ == 0) set(PROT_READ | PROT_WRITE);
  }
  ~Touching() {
    if (--depth_ == 0) set(PROT_NONE);
  }
  Touching(const Touching&) = delete;
  Touching& operator=(const Touching&) = delete;

 private:
  static void set(int how) {
    for (const auto& [base, each] : world().memory) protect(each, how);
  }
  inline static int depth_ = 0;
};

inline CUdeviceptr allocate(CUctx_st& context, std::size_t size) {
  need(size > 0, CUDA_ERROR_INVALID_VALUE, "no bytes are asked for");
  if (size > world().memory_bytes - context.used_bytes)
    fail(CUDA_ERROR_OUT_OF_MEMORY, "out of memory");
  const std::size_t room = rounded(rounded(size, kAlignment), kPage), mapped = room + 2 * kPage;
  void* pages = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) fail(CUDA_ERROR_OUT_OF_MEMORY, "out of the host's memory");
  Allocation made{&context, static_cast<char*>(pages), mapped, nullptr, size};
  // As far behind as alignment lets it: whatever is read behind it faults.
  made.base = made.mapped + kPage + room - rounded(size, kAlignment);
  protect(made, PROT_READ | PROT_WRITE);
  std::memset(made.mapped + kPage, kGuard, room);
  std::memset(made.base, kFresh, size);
  protect(made, PROT_NONE);
  context.used_bytes += size;
  const auto address = reinterpret_cast<std::uintptr_t>(made.base);
  world().memory.emplace(address, made);
  return address;
}

// The allocation that holds the byte at `pointer`; null where there is none.
inline const Allocation* holding(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto found = world().memory.upper_bound(address);
  if (found == world().memory.begin()) return nullptr;
  const auto& [base, allocation] = *--found;
  return address - base < allocation.size ? &allocation : nullptr;
}

inline bool holds(const void* pointer, std::size_t size) {
  const Allocation* found = holding(pointer);
  return found && static_cast<const char*>(pointer) + size <= found->base + found->size;
}

// Whether what lies around an allocation in its own pages is as it was.
inline bool intact(const Allocation& each) {
  const char* first = each.mapped + kPage;
  const char* last = each.mapped + each.mapped_bytes - kPage;
  const auto whole = [](char byte) { return static_cast<unsigned char>(byte) == kGuard; };
  return std::all_of(first, static_cast<const char*>(each.base), whole) &&
         std::all_of(static_cast<const char*>(each.base + each.size), last, whole);
}

inline void* pointer_at(CUdeviceptr address) {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
}

}  // namespace stand_in
