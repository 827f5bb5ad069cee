// CUDA on a CPU: runs the source of kernels as it is generated, thread by thread, for tests.
//
// Every thread of a block is a fiber. It runs until it waits for others: at __syncthreads, or at an
// operation of its warp, which happens when all 32 lanes have come to the same one. Fibers take
// turns forwards, backwards or at random, so that a missing barrier shows as a wrong result; copies
// that are asynchronous happen when they are issued or only when they are waited for; memory of a
// block begins as garbage. Semantics of operations: PTX ISA 9, "mma.m16n8k256", "cp.async".
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define GSB_EMULATED
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ __attribute__((section("gsb_shared"))) static
using std::max;
using std::min;
// As the GPU's: the other one where one is NaN.
inline float max(float a, float b) { return std::fmax(a, b); }
inline float min(float a, float b) { return std::fmin(a, b); }

struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(2) char2 {
  signed char x, y;
};
struct alignas(4) char4 {
  signed char x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static uint3 threadIdx, blockIdx;

extern "C" char __start_gsb_shared[] __attribute__((weak));
extern "C" char __stop_gsb_shared[] __attribute__((weak));

namespace gsb {

constexpr int kWarp = 32;
constexpr std::size_t kStack = 256 << 10;

struct Copy {
  void* to;
  const void* from;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = false;
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

// Threads that wait for each other: what they came for, and how many have come.
struct Meeting {
  int expected = 0, came = 0;
  long held = 0;  // meetings so far
  const char* what = nullptr;
  std::uint64_t slots[2][kWarp];
  void* pointers[kWarp][3];
  int any[2] = {0, 0};
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<Meeting> warps;
  Meeting block;
  ucontext_t home;
  int current = 0, remaining = 0;
  unsigned order = 0;  // 0 forwards, 1 backwards, more: the seed of a random order
  bool lazy = true;
  unsigned across = 1, down = 1;  // threads of a block along x and y
  std::mt19937 random;
  std::string error;
  void (*function)(void*, void**) = nullptr;
  void* target = nullptr;
  void** arguments = nullptr;
};

inline Machine machine;

inline void set_thread(int number) {
  machine.current = number;
  const unsigned n = static_cast<unsigned>(number), line = n / machine.across;
  threadIdx = {n % machine.across, line % machine.down, line / machine.down};
}

inline void switch_to(int next) {
  Fiber& from = machine.fibers[machine.current];
  set_thread(next);
  swapcontext(&from.context, &machine.fibers[next].context);
}

[[noreturn]] inline void fail(const std::string& why) {
  machine.error = why;
  setcontext(&machine.home);
  std::abort();
}

// Let another thread go on.
inline void yield() {
  const int count = static_cast<int>(machine.fibers.size());
  int next = machine.current;
  int step = machine.order == 1 ? count - 1 : 1;
  if (machine.order > 1) next = static_cast<int>(machine.random() % count);
  for (int i = 0; i <= count; ++i) {
    next = (next + step) % count;
    if (!machine.fibers[next].done) break;
  }
  if (next != machine.current) switch_to(next);
}

inline int lane() { return machine.current % kWarp; }
inline Meeting& warp() { return machine.warps[machine.current / kWarp]; }

// Wait until all have come to `what`; the last to come does `together`.
template <typename F>
inline void meet(Meeting& meeting, const char* what, F together) {
  if (meeting.came && meeting.what != what)
    fail(std::string("threads that should meet are at ") + meeting.what + " and at " + what);
  meeting.what = what;
  const long held = meeting.held;
  if (++meeting.came == meeting.expected) {
    together();
    meeting.came = 0;
    ++meeting.held;
    return;
  }
  for (long turns = 0; meeting.held == held; ++turns) {
    if (turns > 1000000 || machine.remaining < meeting.expected)
      fail(std::string("threads wait at ") + what + " for others that do not come");
    yield();
  }
}

inline void copy(const Copy& each) { std::memcpy(each.to, each.from, 16); }

inline void body() {
  machine.function(machine.target, machine.arguments);
  Fiber& mine = machine.fibers[machine.current];
  for (const auto& group : mine.groups) std::for_each(group.begin(), group.end(), copy);
  std::for_each(mine.open.begin(), mine.open.end(), copy);
  mine.groups.clear();
  mine.open.clear();
  mine.done = true;
  if (--machine.remaining == 0) setcontext(&machine.home);
  yield();
  fail("a thread that has ended went on");
}

inline bool run_block(int threads) {
  machine.fibers.resize(threads);
  machine.warps.assign((threads + kWarp - 1) / kWarp, Meeting());
  for (std::size_t i = 0; i < machine.warps.size(); ++i)
    machine.warps[i].expected = std::min<int>(kWarp, threads - static_cast<int>(i) * kWarp);
  machine.block = Meeting();
  machine.block.expected = machine.remaining = threads;
  if (__start_gsb_shared)
    std::memset(__start_gsb_shared, 0xa5, __stop_gsb_shared - __start_gsb_shared);
  for (Fiber& fiber : machine.fibers) {
    fiber.done = false;
    fiber.open.clear();
    fiber.groups.clear();
    if (!fiber.stack) fiber.stack.reset(new char[kStack]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, body, 0);
  }
  volatile bool started = false;
  getcontext(&machine.home);
  if (!started) {
    started = true;
    set_thread(machine.order == 1 ? threads - 1 : 0);
    setcontext(&machine.fibers[machine.current].context);
  }
  return machine.error.empty();
}

template <typename T>
inline std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
inline T of_lane(const char* what, T mine, int from) {
  Meeting& at = warp();
  const int parity = at.held & 1;
  at.slots[parity][lane()] = to_bits(mine);
  meet(at, what, [] {});
  T value;
  std::memcpy(&value, &at.slots[parity][from & (kWarp - 1)], sizeof(T));
  return value;
}

// d += popc(a & b) by the fragments of all lanes; `deep` words of a row.
inline void multiply(Meeting& at, int deep) {
  unsigned a[16][8], b[8][8];
  for (int l = 0; l < kWarp; ++l) {
    const auto* of_a = static_cast<const unsigned*>(at.pointers[l][1]);
    const auto* of_b = static_cast<const unsigned*>(at.pointers[l][2]);
    for (int step = 0; step < deep / 4; ++step) {
      a[l / 4][l % 4 + 4 * step] = of_a[2 * step];
      a[l / 4 + 8][l % 4 + 4 * step] = of_a[2 * step + 1];
      b[l / 4][l % 4 + 4 * step] = of_b[step];
    }
  }
  for (int l = 0; l < kWarp; ++l) {
    auto* d = static_cast<int*>(at.pointers[l][0]);
    for (int i = 0; i < 4; ++i) {
      const unsigned* row = a[l / 4 + i / 2 * 8];
      const unsigned* column = b[l % 4 * 2 + i % 2];
      for (int word = 0; word < deep; ++word) d[i] += __builtin_popcount(row[word] & column[word]);
    }
  }
}

inline void mma(const char* what, int deep, int* d, const unsigned* a, const unsigned* b) {
  Meeting& at = warp();
  at.pointers[lane()][0] = d;
  at.pointers[lane()][1] = const_cast<unsigned*>(a);
  at.pointers[lane()][2] = const_cast<unsigned*>(b);
  meet(at, what, [&] { multiply(at, deep); });
}

}  // namespace gsb

inline void __syncthreads() { gsb::meet(gsb::machine.block, "__syncthreads", [] {}); }
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
// Of all threads of the warp, which must have come wherever TVM asks.
inline unsigned __activemask() { return ~0u >> (gsb::kWarp - gsb::warp().expected); }
inline int gsb_source(unsigned mask, int from, int width) {
  if (mask != __activemask()) gsb::fail("lanes of a warp are left out");
  const int lane = gsb::lane();
  const bool inside = lane / width == from / width && from < gsb::warp().expected;
  return inside ? from : lane;
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T mine, int distance, int width) {
  return gsb::of_lane("__shfl_down_sync", mine, gsb_source(mask, gsb::lane() + distance, width));
}
template <typename T>
inline T __shfl_sync(unsigned mask, T mine, int from, int width) {
  const int first = gsb::lane() / width * width;
  return gsb::of_lane("__shfl_sync", mine, gsb_source(mask, first + from % width, width));
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }

inline void gsb_mma_256(int* d, const unsigned* a, const unsigned* b) {
  gsb::mma("gsb_mma_256", 8, d, a, b);
}
inline void gsb_mma_128(int* d, const unsigned* a, const unsigned* b) {
  gsb::mma("gsb_mma_128", 4, d, a, b);
}
inline void gsb_copy(void* to, const void* from) {
  if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % 16)
    gsb::fail("a copy of 16 bytes that are not aligned");
  gsb::machine.fibers[gsb::machine.current].open.push_back({to, from});
  if (!gsb::machine.lazy) gsb::copy({to, from});
}
inline void gsb_commit() {
  gsb::Fiber& mine = gsb::machine.fibers[gsb::machine.current];
  mine.groups.push_back(std::move(mine.open));
  mine.open.clear();
}
template <int PENDING>
inline void gsb_wait() {
  gsb::Fiber& mine = gsb::machine.fibers[gsb::machine.current];
  while (mine.groups.size() > PENDING) {
    if (gsb::machine.lazy)
      std::for_each(mine.groups.front().begin(), mine.groups.front().end(), gsb::copy);
    mine.groups.pop_front();
  }
}
inline unsigned gsb_ballot(bool mine) {
  gsb::Meeting& at = gsb::warp();
  const int parity = at.held & 1;
  at.slots[parity][gsb::lane()] = mine;
  gsb::meet(at, "gsb_ballot", [] {});
  unsigned bits = 0;
  for (int l = 0; l < at.expected; ++l) bits |= static_cast<unsigned>(at.slots[parity][l]) << l;
  return bits;
}
inline bool gsb_any_of_block(bool mine) {
  gsb::Meeting& at = gsb::machine.block;
  const int parity = at.held & 1;
  at.any[parity] |= mine;
  gsb::meet(at, "gsb_any_of_block", [&] { at.any[1 - parity] = 0; });
  return at.any[parity];
}
template <typename T>
inline T gsb_from_lane(T mine, int lane) {
  return gsb::of_lane("gsb_from_lane", mine, lane);
}
template <typename T>
inline T gsb_exchange(T mine, int distance) {
  return gsb::of_lane("gsb_exchange", mine, gsb::lane() ^ distance);
}
inline unsigned gsb_turn(unsigned row, int lane) {
  unsigned column = 0;
  for (int l = 0; l < gsb::kWarp; ++l)
    column |= (gsb::of_lane("gsb_turn", row, l) >> lane & 1) << l;
  return column;
}
inline int gsb_atomic_add(int* at, int value) { return std::exchange(*at, *at + value); }
inline int gsb_atomic_max(int* at, int value) { return std::exchange(*at, std::max(*at, value)); }
inline void gsb_warp_max_to(int* at, unsigned mine) {
  gsb::Meeting& meeting = gsb::warp();
  const int parity = meeting.held & 1;
  meeting.slots[parity][gsb::lane()] = mine;
  gsb::meet(meeting, "gsb_warp_max_to", [] {});
  if (gsb::lane()) return;
  unsigned* largest = reinterpret_cast<unsigned*>(at);
  for (int l = 0; l < meeting.expected; ++l)
    *largest = std::max(*largest, static_cast<unsigned>(meeting.slots[parity][l]));
}
inline int gsb_atomic_or(int* at, int value) { return std::exchange(*at, *at | value); }
inline int gsb_atomic_exchange(int* at, int value) { return std::exchange(*at, value); }
inline void gsb_fence() {}
inline float gsb_round(float x) { return std::nearbyint(x); }
inline float gsb_max(float a, float b) { return a > b || a != a ? a : b; }
inline float gsb_min(float a, float b) { return a < b || a != a ? a : b; }
inline float gsb_fma(float a, float b, float c) { return std::fma(a, b, c); }

namespace gsb {

template <std::size_t... I>
void call(void* target, void** arguments, std::index_sequence<I...>) {
  reinterpret_cast<void (*)(decltype((void)I, (void*)nullptr)...)>(target)(arguments[I]...);
}

template <std::size_t N>
void call_with(void* target, void** arguments) {
  call(target, arguments, std::make_index_sequence<N>());
}

template <std::size_t... N>
auto callers(std::index_sequence<N...>) {
  return std::vector<void (*)(void*, void**)>{call_with<N>...};
}

// A kernel of the source, and the number of pointers that it takes.
struct Listed {
  const char* name;
  void* target;
  int pointers;
};

template <typename... T>
Listed listed(const char* name, void (*target)(T*...)) {
  return {name, reinterpret_cast<void*>(target), static_cast<int>(sizeof...(T))};
}

}  // namespace gsb

// Run a kernel of `count` pointers; 0, or 1 where gsb_error() says what is wrong.
extern "C" int gsb_launch(void* target, void** arguments, int count, const unsigned* grid,
                          const unsigned* block, unsigned order, int lazy) {
  static const auto callers = gsb::callers(std::make_index_sequence<40>());
  gsb::Machine& m = gsb::machine;
  m.function = callers.at(count);
  m.target = target;
  m.arguments = arguments;
  m.order = order;
  m.lazy = lazy;
  m.across = block[0];
  m.down = block[1];
  m.random.seed(order);
  m.error.clear();
  std::vector<unsigned> blocks(grid[0] * grid[1] * grid[2]);
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<unsigned>(i);
  if (order == 1) std::reverse(blocks.begin(), blocks.end());
  if (order > 1) std::shuffle(blocks.begin(), blocks.end(), m.random);
  for (unsigned each : blocks) {
    blockIdx = {each % grid[0], each / grid[0] % grid[1], each / grid[0] / grid[1]};
    if (!gsb::run_block(static_cast<int>(block[0] * block[1] * block[2]))) return 1;
  }
  return 0;
}

extern "C" const char* gsb_error() { return gsb::machine.error.c_str(); }

// Generated code writes it where C++ has it not: between specifiers.
#define alignas(bytes) __attribute__((aligned(bytes)))
