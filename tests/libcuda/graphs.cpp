// Graphs: nodes, what they become to be executed, and how one node is changed.
#include <algorithm>

#include "api.hpp"

using namespace stand_in;

namespace {

Action kernel(CUctx_st& context, const CUDA_KERNEL_NODE_PARAMS_v2* parameters) {
  need(parameters && parameters->func && !parameters->kern, CUDA_ERROR_INVALID_VALUE,
       "a kernel's node without a function");
  need(!parameters->ctx || parameters->ctx == &context, CUDA_ERROR_INVALID_CONTEXT,
       "a node of another context");
  const CUDA_KERNEL_NODE_PARAMS_v2& p = *parameters;
  return launch_of(context, p.func, {p.gridDimX, p.gridDimY, p.gridDimZ},
                   {p.blockDimX, p.blockDimY, p.blockDimZ}, p.sharedMemBytes, p.kernelParams,
                   p.extra);
}

// One side of a copy of bytes in a row: where it is, and whether that is on the GPU.
std::pair<const void*, bool> side(CUmemorytype type, CUdeviceptr on_gpu, const void* on_host,
                                  std::size_t offset, std::size_t size) {
  const bool gpu = type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_UNIFIED;
  need(gpu || type == CU_MEMORYTYPE_HOST, CUDA_ERROR_INVALID_VALUE, "memory of no known type");
  const char* at = (gpu ? static_cast<const char*>(pointer_at(on_gpu))
                        : static_cast<const char*>(on_host)) +
                   offset;
  need(gpu ? holds(at, size) : on_host != nullptr, CUDA_ERROR_INVALID_VALUE, "beyond memory");
  return {at, gpu};
}

Action copy(const CUDA_MEMCPY3D_v2* parameters, CUcontext context) {
  need(world().contexts.has(context), CUDA_ERROR_INVALID_CONTEXT, "a copy without a context");
  need(parameters != nullptr, CUDA_ERROR_INVALID_VALUE, "a copy's node without parameters");
  const CUDA_MEMCPY3D_v2& p = *parameters;
  need(p.WidthInBytes && p.Height == 1 && p.Depth == 1, CUDA_ERROR_INVALID_VALUE,
       "not a copy of bytes in a row");
  need(!p.srcY && !p.srcZ && !p.srcLOD && !p.dstY && !p.dstZ && !p.dstLOD && !p.reserved0 &&
           !p.reserved1,
       CUDA_ERROR_INVALID_VALUE, "a copy with fields that must be zero");
  const auto source =
      side(p.srcMemoryType, p.srcDevice, p.srcHost, p.srcXInBytes, p.WidthInBytes);
  const auto target =
      side(p.dstMemoryType, p.dstDevice, p.dstHost, p.dstXInBytes, p.WidthInBytes);
  Action action{Action::kCopy};
  action.copy = {const_cast<void*>(target.first), source.first, p.WidthInBytes, target.second,
                 source.second};
  return action;
}

void add(CUgraphNode* made, CUgraph graph, const CUgraphNode* before, std::size_t count,
         const Action& action) {
  CUgraph_st& into = world().graphs.at(graph, "graph");
  need(made && (before || !count), CUDA_ERROR_INVALID_VALUE, "a node has no place");
  std::vector<CUgraphNode> dependencies(before, before + count);
  for (CUgraphNode each : dependencies)
    need(world().nodes.at(each, "node").graph == graph, CUDA_ERROR_INVALID_VALUE,
         "a node of another graph");
  *made = world().nodes.make(CUgraphNode_st{graph, std::move(dependencies), action});
  into.nodes.push_back(*made);
}

CUgraphExec_st& executable_of(CUctx_st& context, CUgraphExec handle) {
  CUgraphExec_st& executable = world().executables.at(handle, "executable graph");
  need(executable.context == &context, CUDA_ERROR_INVALID_HANDLE, "of another context");
  return executable;
}

void change(CUctx_st& context, CUgraphExec handle, CUgraphNode node, const Action& action) {
  CUgraphExec_st& executable = executable_of(context, handle);
  world().nodes.at(node, "node");
  const auto found = executable.numbers.find(node);
  need(found != executable.numbers.end(), CUDA_ERROR_INVALID_VALUE, "a node of another graph");
  Action& known = executable.actions[found->second];
  need(known.kind == action.kind && known.kernel.function == action.kernel.function,
       CUDA_ERROR_INVALID_VALUE, "a node that does something else");
  known = action;
}

}  // namespace

namespace stand_in {

void end_graph(CUgraph graph) {
  for (CUgraphNode node : graph->nodes) world().nodes.end(node);
  world().graphs.end(graph);
}

}  // namespace stand_in

GSB_API CUresult cuGraphCreate(CUgraph* graph, unsigned flags) {
  return initialized([&] {
    need(flags == 0, CUDA_ERROR_INVALID_VALUE, "flags of a graph are 0");
    give(graph, world().graphs.make());
  });
}

GSB_API CUresult cuGraphDestroy(CUgraph graph) {
  return initialized([&] {
    world().graphs.at(graph, "graph");
    end_graph(graph);
  });
}

GSB_API CUresult cuGraphAddKernelNode_v2(CUgraphNode* node, CUgraph graph,
                                         const CUgraphNode* before, std::size_t count,
                                         const CUDA_KERNEL_NODE_PARAMS_v2* parameters) {
  return in_context(
      [&](CUctx_st& context) { add(node, graph, before, count, kernel(context, parameters)); });
}

GSB_API CUresult cuGraphAddMemcpyNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* before,
                                      std::size_t count, const CUDA_MEMCPY3D_v2* parameters,
                                      CUcontext context) {
  return in_context(
      [&](CUctx_st&) { add(node, graph, before, count, copy(parameters, context)); });
}

GSB_API CUresult cuGraphAddMemsetNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* before,
                                      std::size_t count,
                                      const CUDA_MEMSET_NODE_PARAMS_v1* parameters,
                                      CUcontext context) {
  return in_context([&](CUctx_st&) {
    need(world().contexts.has(context), CUDA_ERROR_INVALID_CONTEXT, "a fill without a context");
    need(parameters && parameters->elementSize == 1 && parameters->height == 1,
         CUDA_ERROR_INVALID_VALUE, "not a fill of bytes in a row");
    void* target = pointer_at(parameters->dst);
    need(holds(target, parameters->width), CUDA_ERROR_INVALID_VALUE, "a fill beyond memory");
    Action action{Action::kFill};
    action.fill = {target, parameters->width, static_cast<unsigned char>(parameters->value)};
    add(node, graph, before, count, action);
  });
}

GSB_API CUresult cuGraphAddEmptyNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* before,
                                     std::size_t count) {
  return in_context([&](CUctx_st&) { add(node, graph, before, count, Action{}); });
}

GSB_API CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, std::size_t* count) {
  return initialized([&] {
    const CUgraph_st& graph = world().graphs.at(handle, "graph");
    need(count != nullptr, CUDA_ERROR_INVALID_VALUE, "a number has no place");
    if (nodes) std::copy_n(graph.nodes.begin(), std::min(*count, graph.nodes.size()), nodes);
    *count = graph.nodes.size();
  });
}

GSB_API CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph handle,
                                             unsigned long long flags) {
  return in_context([&](CUctx_st& context) {
    need(flags == 0, CUDA_ERROR_INVALID_VALUE, "flags that the stand-in does not know");
    CUgraph_st& graph = world().graphs.at(handle, "graph");
    CUgraphExec_st made{&context, handle};
    for (CUgraphNode node : graph.nodes) {
      made.numbers.emplace(node, made.actions.size());
      made.actions.push_back(node->action);
    }
    give(executable, world().executables.make(std::move(made)));
  });
}

GSB_API CUresult cuGraphExecDestroy(CUgraphExec executable) {
  return in_context([&](CUctx_st& context) {
    executable_of(context, executable);
    world().executables.end(executable);
  });
}

GSB_API CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec executable, CUgraphNode node,
                                                   const CUDA_KERNEL_NODE_PARAMS_v2* parameters) {
  return in_context([&](CUctx_st& context) {
    change(context, executable, node, kernel(context, parameters));
  });
}

GSB_API CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec executable, CUgraphNode node,
                                                const CUDA_MEMCPY3D_v2* parameters,
                                                CUcontext owner) {
  return in_context([&](CUctx_st& context) {
    change(context, executable, node, copy(parameters, owner));
  });
}

GSB_API CUresult cuGraphUpload(CUgraphExec executable, CUstream stream) {
  return in_context([&](CUctx_st& context) {
    executable_of(context, executable);
    stream_of(context, stream);
  });
}

GSB_API CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
  return in_context([&](CUctx_st& context) {
    CUgraphExec_st& executable = executable_of(context, handle);
    CUstream_st& queue = *stream_of(context, stream);
    if (queue.capture) invalidate(queue);
    need(!queue.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
         "the stand-in records no graph in a graph");
    const WorkRef last = executable.last;
    // What is changed later concerns later launches.
    executable.last = enqueue(context, queue, [actions = executable.actions] {
      ++world().done["launched"];
      for (const Action& action : actions) perform(action);
    });
    if (last && !last->done) executable.last->before.push_back(last);
  });
}
