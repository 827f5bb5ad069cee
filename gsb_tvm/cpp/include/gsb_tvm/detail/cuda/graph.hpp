// Doing a program's actions: one by one, or as a graph that is launched as one.
#ifndef GSB_TVM_DETAIL_CUDA_GRAPH_HPP_
#define GSB_TVM_DETAIL_CUDA_GRAPH_HPP_

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "model.hpp"

namespace gsb_tvm::detail::cuda {

using Addresses = std::vector<Address>;

// Where places are in a call.
struct Bases {
  const std::vector<void*>& tensors;  // inputs, then outputs
  std::size_t inputs;
  Address memory, constants;

  Address of(const Place& place) const noexcept {
    const std::size_t at = static_cast<std::size_t>(place.at);
    switch (place.where) {
      case Where::input:
        return address(tensors[at]);
      case Where::output:
        return address(tensors[inputs + at]);
      case Where::memory:
        return memory + at;
      default:
        return constants + at;
    }
  }

  Addresses of(const Action& action) const {
    Addresses made;
    for (const Place& place : action.places) made.push_back(of(place));
    return made;
  }
};

// A launch in the form that the driver takes; alive as long as `addresses`.
class Parameters {
 public:
  explicit Parameters(const Addresses& addresses) {
    for (const Address& address : addresses)
      pointers_.push_back(const_cast<Address*>(&address));  // read only
  }
  void** get() noexcept { return pointers_.data(); }

 private:
  std::vector<void*> pointers_;
};

// Put an action into a stream.
inline void enqueue(const Action& action, const Addresses& addresses, Stream stream) {
  if (!action.function) {
    driver()(driver().copy, addresses[0], addresses[1], action.bytes, stream);
    return;
  }
  const std::array<unsigned, 3>&grid = action.grid, &block = action.block;
  driver()(driver().launch, action.function, grid[0], grid[1], grid[2], block[0], block[1],
           block[2], 0, stream, Parameters(addresses).get(), nullptr);
}

inline KernelNode kernel_node(const Action& action, void** parameters) noexcept {
  KernelNode node = {};
  node.function = action.function;
  std::copy(action.grid.begin(), action.grid.end(), node.grid);
  std::copy(action.block.begin(), action.block.end(), node.block);
  node.parameters = parameters;
  return node;
}

inline CopyNode copy_node(const Action& action, const Addresses& addresses) noexcept {
  CopyNode node = {};
  node.source.memory_type = node.target.memory_type = device_memory;
  node.target.device = addresses[0];
  node.source.device = addresses[1];
  node.width_bytes = action.bytes;
  node.height = node.depth = 1;
  return node;
}

// All actions of a program, one behind the other, as a graph.
class Recorded {
 public:
  // In a GPU's context, which must outlive it, as must `actions`. Throws Error.
  Recorded(Context context, const std::vector<Action>& actions, const Bases& bases)
      : context_(context) {
    Graph graph = nullptr;
    driver()(driver().make_graph, &graph, 0);
    graph_ = Owned<Graph>(context, graph, driver().destroy_graph);
    for (const Action& action : actions) add(action, bases.of(action));
    Executable executable = nullptr;
    driver()(driver().instantiate, &executable, graph, 0);
    executable_ = Owned<Executable>(context, executable, driver().destroy_executable);
  }

  // Make anew what touches other tensors than in the call before.
  void change(const Bases& bases) {
    for (Moving& each : moving_) {
      Addresses wanted = bases.of(each.action);
      if (wanted == each.addresses) continue;
      set(each, wanted);
      each.addresses = std::move(wanted);
    }
  }

  void launch(Stream stream) const {
    driver()(driver().launch_graph, executable_.get(), stream);
  }

 private:
  // A node that touches tensors of a call, and where they are now.
  struct Moving {
    const Action& action;
    GraphNode node;
    Addresses addresses;
  };

  void add(const Action& action, const Addresses& addresses) {
    GraphNode node = nullptr;
    const GraphNode* const before = last_ ? &last_ : nullptr;
    const std::size_t count = last_ ? 1 : 0;
    if (action.function) {
      Parameters parameters(addresses);
      const KernelNode what = kernel_node(action, parameters.get());
      driver()(driver().add_kernel, &node, graph_.get(), before, count, &what);
    } else {
      const CopyNode what = copy_node(action, addresses);
      driver()(driver().add_copy, &node, graph_.get(), before, count, &what, context_);
    }
    if (action.moves()) moving_.push_back({action, node, addresses});
    last_ = node;
  }

  void set(const Moving& moving, const Addresses& wanted) const {
    if (moving.action.function) {
      Parameters parameters(wanted);
      const KernelNode what = kernel_node(moving.action, parameters.get());
      driver()(driver().set_kernel, executable_.get(), moving.node, &what);
    } else {
      const CopyNode what = copy_node(moving.action, wanted);
      driver()(driver().set_copy, executable_.get(), moving.node, &what, context_);
    }
  }

  Context context_;
  Owned<Graph> graph_;
  Owned<Executable> executable_;
  GraphNode last_ = nullptr;
  std::vector<Moving> moving_;
};

}  // namespace gsb_tvm::detail::cuda

#endif  // GSB_TVM_DETAIL_CUDA_GRAPH_HPP_
