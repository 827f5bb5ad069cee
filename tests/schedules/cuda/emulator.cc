// CUDA on a CPU: runs kernels compiled with emulator.hpp, thread by thread, for tests. It is linked
// to the kernels of each library.
//
// Every thread of a block is a fiber. It runs until it waits for others: at __syncthreads, or at an
// operation of its warp, which happens when all 32 lanes have come to the same one. Fibers take
// turns forwards, backwards or at random, so that a missing barrier shows as a wrong result; copies
// that are asynchronous happen when they are issued or only when they are waited for; memory of a
// block begins as garbage. Touching a page that is nobody's ends the launch with an error, and so does
// a tensor that begins between two words, whether or not the kernel reads it in words.
#include "emulator.hpp"
#undef alignas

#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

uint3 threadIdx, blockIdx;

// Where __shared__ variables of this library stand, if there are any.
extern "C" char __start_gsb_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_gsb_shared[] __attribute__((weak, visibility("hidden")));

namespace gsb {
namespace {

constexpr std::size_t kStack = 256 << 10;
constexpr std::uintptr_t kWordBytes = 16;  // of the largest words that kernels read

struct Copy {
  void* to;
  const void* from;
};

// Threads that wait for each other: what they came for, and how many have come.
struct Meeting {
  int expected = 0, came = 0;
  long held = 0;  // meetings so far
  const char* what = nullptr;
  // Of this meeting, and of the next: who is early there may come before all have left here.
  std::array<std::uint64_t, kWarp> said[2];
  bool any[2] = {false, false};
  struct {
    int* d;
    const unsigned *a, *b;
  } fragments[kWarp];

  int parity() const { return held & 1; }
};

// A context of its own, entered once and then resumed where it paused, block after block.
struct Fiber {
  jmp_buf paused;
  std::unique_ptr<char[]> stack;  // once it has been entered
  bool done = true;
  const Meeting* at = nullptr;  // where it waits for the meeting number `awaited`
  long awaited = 0;
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;

  bool may_go_on() const { return !done && !(at && at->held < awaited); }
};

struct Machine {
  std::deque<Fiber> fibers;
  std::vector<Meeting> warps;
  Meeting block;
  jmp_buf home;
  int threads = 0, current = 0, remaining = 0;
  unsigned order = 0;  // 0 forwards, 1 backwards, more: the seed of a random order
  bool lazy = true;
  unsigned across = 1, down = 1;  // threads of a block along x and y
  std::mt19937 random;
  std::string error;
  const void* stray = nullptr;  // an address that was touched and is nobody's
  void (*function)(void*, void**) = nullptr;
  void* target = nullptr;
  void** arguments = nullptr;
};

Machine machine;

Fiber& mine() { return machine.fibers[machine.current]; }
Meeting& warp() { return machine.warps[machine.current / kWarp]; }

void happen(const Copy& each) { std::memcpy(each.to, each.from, 16); }
void happen(const std::vector<Copy>& copies) {
  for (const Copy& each : copies) happen(each);
}

// The next thread in turn that has something to do; -1 if none has.
int next() {
  const int count = machine.threads, step = machine.order == 1 ? count - 1 : 1;
  int found = (machine.current + step) % count;
  if (machine.order > 1) found = static_cast<int>(machine.random() % count);
  for (int i = 0; i < count; ++i, found = (found + step) % count)
    if (machine.fibers[found].may_go_on()) return found;
  return -1;
}

void pause();

// What a thread does: its part of one block, and of the next when it is resumed.
void body() {
  for (;;) {
    machine.function(machine.target, machine.arguments);
    for (const auto& group : mine().groups) happen(group);
    happen(mine().open);
    mine().groups.clear();
    mine().open.clear();
    mine().done = true;
    --machine.remaining;
    pause();
  }
}

void enter(Fiber& fiber) {
  fiber.stack.reset(new char[kStack]);
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack.get();
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, body, 0);
  setcontext(&context);
}

void resume(int number) {
  machine.current = number;
  const unsigned n = static_cast<unsigned>(number), line = n / machine.across;
  threadIdx = {n % machine.across, line % machine.down, line / machine.down};
  if (!mine().stack) enter(mine());
  _longjmp(mine().paused, 1);
}

// Let others go on until it is this thread's turn again. Contexts are left by _setjmp, which keeps
// no mask of signals: swapcontext asks the kernel for it twice.
void pause() {
  if (_setjmp(mine().paused)) return;
  if (machine.remaining == 0) _longjmp(machine.home, 1);
  const int number = next();
  if (number < 0) {
    const auto waits = [](const Fiber& fiber) { return !fiber.done; };
    const auto& at = *std::find_if(machine.fibers.begin(), machine.fibers.end(), waits)->at;
    fail((std::string("threads wait at ") + at.what + " for others that do not come").c_str());
  }
  resume(number);
}

// Wait until all have come to `what`; the last to come does `together`.
template <typename F>
void meet(Meeting& meeting, const char* what, F together) {
  if (meeting.came && std::strcmp(meeting.what, what))
    fail((std::string("threads that should meet are at ") + meeting.what + " and at " + what)
             .c_str());
  meeting.what = what;
  if (++meeting.came == meeting.expected) {
    together();
    meeting.came = 0;
    ++meeting.held;
    return;
  }
  mine().at = &meeting;
  mine().awaited = meeting.held + 1;
  pause();
  mine().at = nullptr;
}

// What all lanes of this warp say, at the same operation.
const std::array<std::uint64_t, kWarp>& exchanged(const char* what, std::uint64_t said) {
  auto& slots = warp().said[warp().parity()];
  slots[lane()] = said;
  meet(warp(), what, [] {});
  return slots;
}

// Whether any thread of the block says so, at the same operation.
bool any_said(const char* what, bool said) {
  Meeting& at = machine.block;
  const int parity = at.parity();
  at.any[parity] |= said;
  meet(at, what, [&] { at.any[1 - parity] = false; });
  return at.any[parity];
}

// d += popc(a & b) by the fragments of all lanes; `words` of a row.
void multiply_fragments(const Meeting& at, int words) {
  unsigned a[16][8], b[8][8];
  for (int l = 0; l < kWarp; ++l) {
    const auto& of = at.fragments[l];
    for (int step = 0; step < words / 4; ++step) {
      a[l / 4][l % 4 + 4 * step] = of.a[2 * step];
      a[l / 4 + 8][l % 4 + 4 * step] = of.a[2 * step + 1];
      b[l / 4][l % 4 + 4 * step] = of.b[step];
    }
  }
  for (int l = 0; l < kWarp; ++l) {
    for (int i = 0; i < 4; ++i) {
      const unsigned* row = a[l / 4 + i / 2 * 8];
      const unsigned* column = b[l % 4 * 2 + i % 2];
      int common = 0;
      for (int word = 0; word < words; ++word)
        common += __builtin_popcount(row[word] & column[word]);
      at.fragments[l].d[i] += common;
    }
  }
}

// d += a * b of bytes, four in a word, by the fragments of all lanes.
void multiply_fragments_of_bytes(const Meeting& at) {
  int a[16][32], b[8][32];
  for (int l = 0; l < kWarp; ++l) {
    const auto& of = at.fragments[l];
    for (int k = 0; k < 8; ++k) {
      const int column = k / 4 * 16 + l % 4 * 4 + k % 4, shift = k % 4 * 8;
      a[l / 4][column] = of.a[k / 4 * 2] >> shift & 255;
      a[l / 4 + 8][column] = of.a[k / 4 * 2 + 1] >> shift & 255;
      b[l / 4][column] = of.b[k / 4] >> shift & 255;
    }
  }
  for (int l = 0; l < kWarp; ++l)
    for (int i = 0; i < 4; ++i) {
      const int* row = a[l / 4 + i / 2 * 8];
      const int* column = b[l % 4 * 2 + i % 2];
      at.fragments[l].d[i] += std::inner_product(row, row + 32, column, 0);
    }
}

bool run_block() {
  machine.warps.assign((machine.threads + kWarp - 1) / kWarp, Meeting());
  for (int i = 0; i < static_cast<int>(machine.warps.size()); ++i)
    machine.warps[i].expected = min(kWarp, machine.threads - i * kWarp);
  machine.block = Meeting();
  machine.block.expected = machine.remaining = machine.threads;
  for (int i = 0; i < machine.threads; ++i) {
    machine.fibers[i].done = false;
    machine.fibers[i].at = nullptr;
  }
  if (!_setjmp(machine.home)) resume(machine.order == 1 ? machine.threads - 1 : 0);
  if (machine.error.empty()) return true;
  machine.fibers.clear();  // none can go on
  return false;
}

// A page that is nobody's. The signal comes on the thread's own stack, which is left at once.
void stray(int, siginfo_t* info, void*) {
  machine.stray = info->si_addr;
  fail("touches memory that is nobody's");
}

// While it lives, stray() is called for accesses that the system refuses.
class Watch {
 public:
  Watch() {
    struct sigaction watched = {};
    watched.sa_sigaction = stray;
    watched.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &watched, &before_[i]);
  }
  ~Watch() {
    for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }

 private:
  static constexpr int kSignals[2] = {SIGSEGV, SIGBUS};
  struct sigaction before_[2];
};

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

std::string text(const uint3& at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) +
         ")";
}

}  // namespace

void fail(const char* why) {
  machine.error = "thread " + text(threadIdx) + " of block " + text(blockIdx) + ": " + why;
  _longjmp(machine.home, 1);
}

int lane() { return machine.current % kWarp; }
int lanes() { return warp().expected; }

void synchronize() { any_said("__syncthreads", false); }
bool any_of_block(bool said) { return any_said("gsb_any_of_block", said); }

std::uint64_t of_lane(const char* what, std::uint64_t said, int from) {
  return exchanged(what, said)[from & (kWarp - 1)];
}

unsigned ballot(bool said) {
  const auto& all = exchanged("gsb_ballot", said);
  unsigned bits = 0;
  for (int l = 0; l < lanes(); ++l) bits |= static_cast<unsigned>(all[l]) << l;
  return bits;
}

void warp_max_to(unsigned* at, unsigned said) {
  const auto& all = exchanged("gsb_warp_max_to", said);
  if (lane()) return;
  for (int l = 0; l < lanes(); ++l) *at = max(*at, static_cast<unsigned>(all[l]));
}

void multiply(const char* what, int words, int* d, const unsigned* a, const unsigned* b) {
  Meeting& at = warp();
  at.fragments[lane()] = {d, a, b};
  meet(at, what, [&] { multiply_fragments(at, words); });
}

void multiply_bytes(const char* what, int* d, const unsigned* a, const unsigned* b) {
  Meeting& at = warp();
  at.fragments[lane()] = {d, a, b};
  meet(at, what, [&] { multiply_fragments_of_bytes(at); });
}

void copy(void* to, const void* from) {
  if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % 16)
    fail("a copy of 16 bytes that are not aligned");
  mine().open.push_back({to, from});
  if (!machine.lazy) happen(Copy{to, from});
}

void commit() {
  mine().groups.push_back(std::move(mine().open));
  mine().open.clear();
}

void wait(std::size_t pending) {
  auto& groups = mine().groups;
  while (groups.size() > pending) {
    if (machine.lazy) happen(groups.front());
    groups.pop_front();
  }
}

}  // namespace gsb

// Run a kernel of `count` pointers; 0, or 1 where gsb_error() says what is wrong, and gsb_stray()
// an address that is nobody's.
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
  m.threads = static_cast<int>(block[0] * block[1] * block[2]);
  if (static_cast<int>(m.fibers.size()) < m.threads) m.fibers.resize(m.threads);
  m.random.seed(order);
  m.error.clear();
  m.stray = nullptr;
  for (int i = 0; i < count; ++i) {
    if (reinterpret_cast<std::uintptr_t>(arguments[i]) % gsb::kWordBytes == 0) continue;
    m.error = "pointer " + std::to_string(i) + " is at no multiple of 16 bytes";
    return 1;
  }
  std::vector<unsigned> blocks(grid[0] * grid[1] * grid[2]);
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<unsigned>(i);
  if (order == 1) std::reverse(blocks.begin(), blocks.end());
  if (order > 1) std::shuffle(blocks.begin(), blocks.end(), m.random);
  const gsb::Watch watch;
  for (unsigned each : blocks) {
    blockIdx = {each % grid[0], each / grid[0] % grid[1], each / grid[0] / grid[1]};
    std::fill(__start_gsb_shared, __stop_gsb_shared, '\xa5');
    if (!gsb::run_block()) return 1;
  }
  return 0;
}

extern "C" const char* gsb_error() { return gsb::machine.error.c_str(); }
extern "C" const void* gsb_stray() { return gsb::machine.stray; }
