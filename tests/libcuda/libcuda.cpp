// A stand-in for NVIDIA's driver, for tests: libcuda.so.1 without a GPU.
//
// It has the part of the driver's API that runtimes of this project and NVIDIA's Python bindings
// use, takes nothing that the driver would not take, does its work as late as it may, and runs the
// generated source of kernels in emulation (tests/schedules/cuda/emulator.hpp). What programs may
// set in their environment, and how they ask what is left, stands in tests/libcuda/build.py.
#include "device.cpp"
#include "graphs.cpp"
#include "memory.cpp"
#include "modules.cpp"
#include "streams.cpp"

// How many things of a kind live, or how often one was done.
GSB_API std::size_t stand_in_count(const char* what) {
  const std::lock_guard<std::mutex> guard(stand_in::world().lock);
  const stand_in::World& w = stand_in::world();
  const std::map<std::string, std::size_t> living = {
      {"allocations", w.memory.size()}, {"modules", w.modules.size()},
      {"graphs", w.graphs.size()},      {"executables", w.executables.size()},
      {"streams", w.streams.size() - w.contexts.size()},  // each context has one of its own
      {"events", w.events.size()},
      {"contexts", w.contexts.size()},  {"host", w.host_memory.size()},
  };
  if (const auto found = living.find(what); found != living.end()) return found->second;
  const auto found = w.done.find(what);
  return found == w.done.end() ? 0 : found->second;
}
