// What the stand-in knows: GPUs, contexts, memory, work that waits, code, graphs. One lock guards
// it all; every function of the API takes it (api.hpp).
#pragma once
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "abi.hpp"

namespace stand_in {

struct Failure {
  CUresult result;
};

inline bool says() {
  static const bool wanted = std::getenv("STAND_IN_SAY") != nullptr;
  return wanted;
}

inline void say(const std::string& what) { std::fprintf(stderr, "libcuda: %s\n", what.c_str()); }

[[noreturn]] inline void fail(CUresult result, const std::string& why) {
  if (says()) say(why + " (" + std::to_string(result) + ")");
  throw Failure{result};
}

inline void need(bool holds, CUresult otherwise, const char* why) {
  if (!holds) fail(otherwise, why);
}

// Objects of one kind that live, by the handle that the program has.
template <typename T>
class Living {
 public:
  using Handle = T*;
  template <typename... Args>
  T* make(Args&&... args) {
    auto owned = std::make_unique<T>(std::forward<Args>(args)...);
    T* handle = owned.get();
    objects_.emplace(handle, std::move(owned));
    return handle;
  }
  T& at(T* handle, const char* what) const {
    const auto found = objects_.find(handle);
    if (found == objects_.end()) fail(CUDA_ERROR_INVALID_HANDLE, std::string("no living ") + what);
    return *found->second;
  }
  bool has(T* handle) const { return objects_.count(handle) != 0; }
  void end(T* handle) { objects_.erase(handle); }
  std::size_t size() const { return objects_.size(); }
  auto begin() const { return objects_.begin(); }
  auto end() const { return objects_.end(); }

 private:
  std::unordered_map<T*, std::unique_ptr<T>> objects_;
};

// Something a stream does behind other things. It happens only when somebody waits for it.
struct Work {
  std::vector<std::shared_ptr<Work>> before;
  std::function<void()> body;
  bool done = false;
};
using WorkRef = std::shared_ptr<Work>;

struct Allocation {
  CUctx_st* context;
  char* mapped;  // an inaccessible page, then what may be written, then an inaccessible page
  std::size_t mapped_bytes;
  char* base;
  std::size_t size;
};

}  // namespace stand_in

// A stream that is recorded into a graph.
struct Capture {
  CUgraph graph;
  CUstreamCaptureMode mode;
  std::thread::id thread;
  std::vector<CUgraphNode> last;
  bool valid = true;
};

struct CUstream_st {
  CUcontext context;
  bool blocking;  // waits for the legacy stream, and is waited for by it
  stand_in::WorkRef tail = nullptr;
  std::unique_ptr<Capture> capture = nullptr;
};

struct CUctx_st {
  CUdevice device;
  int retained = 0;
  CUresult broken = CUDA_SUCCESS;  // what every call ends with once a kernel has failed
  std::size_t used_bytes = 0;
  CUstream legacy = nullptr;
  std::map<std::thread::id, CUstream> of_thread = {};
  std::vector<stand_in::WorkRef> left = {};  // of streams that were destroyed
};

struct CUevent_st {
  CUcontext context;
  bool timed;
  stand_in::WorkRef work = nullptr;
  std::chrono::steady_clock::time_point happened = {};
};

struct CUmod_st {
  CUcontext context;
  void* library;
  std::map<std::string, CUfunction> functions = {};
};

struct CUfunc_st {
  CUmodule module;
  std::string name;
  void* target;
  int pointers;  // it takes
};

namespace stand_in {

struct Kernel {
  CUfunction function;
  unsigned grid[3], block[3];
  std::vector<void*> pointers;
};
struct Copy {
  void* target;
  const void* source;
  std::size_t size;
  bool target_on_device, source_on_device;
};
struct Fill {
  void* target;
  std::size_t size;
  unsigned char value;
};
// What a node of a graph, or a call that is put into a stream, does.
struct Action {
  enum Kind { kNothing, kKernel, kCopy, kFill } kind = kNothing;
  Kernel kernel = {};
  Copy copy = {};
  Fill fill = {};
};

}  // namespace stand_in

struct CUgraphNode_st {
  CUgraph graph;
  std::vector<CUgraphNode> before;
  stand_in::Action action;
};

struct CUgraph_st {
  std::vector<CUgraphNode> nodes = {};  // each behind those it depends on
};

struct CUgraphExec_st {
  CUcontext context;
  CUgraph graph;
  std::map<CUgraphNode, std::size_t> numbers = {};
  std::vector<stand_in::Action> actions = {};
  stand_in::WorkRef last = nullptr;  // launches of one executable follow each other
};

namespace stand_in {

inline std::size_t setting(const char* name, std::size_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct World {
  std::mutex lock;
  bool initialized = false;
  const int gpus = static_cast<int>(setting("STAND_IN_GPUS", 1));
  const int arch = static_cast<int>(setting("STAND_IN_ARCH", 90));
  const std::size_t memory_bytes = setting("STAND_IN_MEMORY", std::size_t{1} << 32);
  std::map<CUdevice, CUcontext> primary;
  Living<CUctx_st> contexts;
  Living<CUstream_st> streams;
  Living<CUevent_st> events;
  Living<CUmod_st> modules;
  Living<CUfunc_st> functions;
  Living<CUgraph_st> graphs;
  Living<CUgraphNode_st> nodes;
  Living<CUgraphExec_st> executables;
  std::map<std::uintptr_t, Allocation> memory;  // by base
  std::map<void*, std::size_t> host_memory;
  std::map<std::string, std::size_t> done;  // how often: kernels, copies, fills, graph launches
};

// Never destroyed: threads may call until the process ends.
inline World& world() {
  static World* const made = new World;
  return *made;
}

inline thread_local std::vector<CUcontext> current;  // the last is the thread's
inline thread_local CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

}  // namespace stand_in
