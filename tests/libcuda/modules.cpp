// Code: cubins and PTX by the emulation of their source, functions, and what they do.

#include <dlfcn.h>

#include <array>

#include "api.hpp"

using namespace stand_in;

namespace {

// A row of the table that tests/schedules/cuda/emulator.py puts into emulated code.
struct Listed {
  const char* name;
  void* target;
  int pointers;
};
using Launch = int (*)(void*, void**, int, const unsigned*, const unsigned*, unsigned, int);
using Error = const char* (*)();
using Stray = const void* (*)();

struct ElfHeader {
  unsigned char ident[16];
  std::uint16_t type, machine;
  std::uint32_t version;
  std::uint64_t entry, program_offset, section_offset;
  std::uint32_t flags;
  std::uint16_t header_size, program_size, programs, section_size, sections, names;
};
static_assert(sizeof(ElfHeader) == 64);
struct ElfSection {
  std::uint32_t name, type;
  std::uint64_t flags, address, offset, size;
  std::uint32_t link, info;
  std::uint64_t alignment, entry_size;
};
static_assert(sizeof(ElfSection) == 64);
constexpr std::uint16_t kCudaMachine = 190;
constexpr std::uint32_t kNoBits = 8;

std::size_t bytes_of_elf(const char* image) {
  ElfHeader header;
  std::memcpy(&header, image, sizeof header);
  need(header.machine == kCudaMachine, CUDA_ERROR_INVALID_IMAGE, "not code of a GPU");
  std::size_t end =
      std::max<std::size_t>(header.section_offset + header.section_size * header.sections,
                            header.program_offset + header.program_size * header.programs);
  for (unsigned i = 0; i < header.sections; ++i) {
    ElfSection section;
    std::memcpy(&section, image + header.section_offset + i * header.section_size, sizeof section);
    if (section.type != kNoBits) end = std::max<std::size_t>(end, section.offset + section.size);
  }
  // Byte 8 of the identification is the ABI's version: from 8 on the architecture is one byte on.
  const unsigned arch = header.flags >> (header.ident[8] >= 8 ? 8 : 0) & 0xff;
  const unsigned here = static_cast<unsigned>(world().arch);
  need(arch / 10 == here / 10 && arch <= here, CUDA_ERROR_NO_BINARY_FOR_GPU,
       "machine code for another GPU");
  return end;
}

std::size_t bytes_of_ptx(const char* image) {
  const char* target = std::strstr(image, ".target sm_");
  need(std::strstr(image, ".version") && target, CUDA_ERROR_INVALID_IMAGE, "neither ELF nor PTX");
  need(std::atoi(target + 11) <= world().arch, CUDA_ERROR_INVALID_PTX, "PTX for a later GPU");
  return std::strlen(image);
}

// Name of the library that emulates an image: FNV-1a, 64 bits, of its bytes.
std::string emulation_of(const char* image, std::size_t size) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i < size; ++i)
    hash = (hash ^ static_cast<unsigned char>(image[i])) * 0x100000001b3u;
  char name[24];
  std::snprintf(name, sizeof name, "%016llx.so", static_cast<unsigned long long>(hash));
  const char* folder = std::getenv("STAND_IN_KERNELS");
  return std::string(folder ? folder : ".") + "/" + name;
}

void load(CUctx_st& context, CUmodule* module, const char* image) {
  need(module && image, CUDA_ERROR_INVALID_VALUE, "no image");
  const bool is_elf = std::memcmp(image, "\177ELF", 4) == 0;
  const std::size_t size = is_elf ? bytes_of_elf(image) : bytes_of_ptx(image);
  const std::string path = emulation_of(image, size);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    say(std::string("code without an emulation: ") + dlerror());
    fail(CUDA_ERROR_UNKNOWN, "code without an emulation");
  }
  const auto* rows = static_cast<const Listed*>(dlsym(library, "gsb_kernels"));
  need(rows != nullptr, CUDA_ERROR_UNKNOWN, "an emulation without a table");
  CUmodule made = world().modules.make(CUmod_st{&context, library});
  for (; rows->name; ++rows)
    made->functions[rows->name] = world().functions.make(
        CUfunc_st{made, rows->name, rows->target, rows->pointers});
  *module = made;
}

// Both sides must be there still when it happens.
void perform_copy(const Copy& copy) {
  const bool there = (!copy.target_on_device || holds(copy.target, copy.size)) &&
                     (!copy.source_on_device || holds(copy.source, copy.size));
  need(there, CUDA_ERROR_ILLEGAL_ADDRESS, "a copy with memory that was freed");
  std::memmove(copy.target, copy.source, copy.size);
  ++world().done["copies"];
}

void perform_fill(const Fill& fill) {
  need(holds(fill.target, fill.size), CUDA_ERROR_ILLEGAL_ADDRESS, "a fill of memory freed before");
  std::memset(fill.target, fill.value, fill.size);
  ++world().done["fills"];
}

void perform_kernel(const Kernel& kernel) {
  CUfunc_st& function = world().functions.at(kernel.function, "function");
  std::vector<void*> pointers = kernel.pointers;
  for (const void* each : pointers) {
    const Allocation* found = holding(each);
    if (found && found->context == function.module->context) continue;
    say(function.name + ": a pointer that is not into memory of the GPU");
    throw Failure{CUDA_ERROR_ILLEGAL_ADDRESS};
  }
  void* library = function.module->library;
  const auto run_it = reinterpret_cast<Launch>(dlsym(library, "gsb_launch"));
  const int failed = run_it(function.target, pointers.data(), function.pointers, kernel.grid,
                            kernel.block, 0, 1);
  if (failed) {
    say(function.name + ": " + reinterpret_cast<Error>(dlsym(library, "gsb_error"))());
    const bool is_stray = reinterpret_cast<Stray>(dlsym(library, "gsb_stray"))();
    throw Failure{is_stray ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_ERROR_LAUNCH_FAILED};
  }
  for (const void* each : pointers) {
    if (intact(*holding(each))) continue;
    say(function.name + ": wrote beside memory of the GPU");
    throw Failure{CUDA_ERROR_ILLEGAL_ADDRESS};
  }
  ++world().done["kernels"];
}

CUfunc_st& function_of(CUctx_st& context, CUfunction handle) {
  CUfunc_st& function = world().functions.at(handle, "function");
  need(function.module->context == &context, CUDA_ERROR_INVALID_HANDLE,
       "a function of another context");
  return function;
}

}  // namespace

namespace stand_in {

void perform(const Action& action) {
  const Touching touching;
  switch (action.kind) {
    case Action::kNothing:
      return;
    case Action::kKernel:
      return perform_kernel(action.kernel);
    case Action::kCopy:
      return perform_copy(action.copy);
    case Action::kFill:
      return perform_fill(action.fill);
  }
}

Action launch_of(CUctx_st& context, CUfunction handle, std::array<unsigned, 3> grid,
                 std::array<unsigned, 3> block, unsigned shared_bytes, void** parameters,
                 void** extra) {
  const CUfunc_st& function = function_of(context, handle);
  const bool fits = grid[0] && grid[1] && grid[2] && grid[0] <= 0x7fffffffu && grid[1] <= 65535 &&
                    grid[2] <= 65535 && block[0] && block[1] && block[2] && block[2] <= 64 &&
                    std::uint64_t{block[0]} * block[1] * block[2] <= 1024;
  need(fits, CUDA_ERROR_INVALID_VALUE, "blocks or threads beyond the limits");
  need(!shared_bytes && !extra, CUDA_ERROR_INVALID_VALUE,
       "dynamic shared memory, or parameters in another form");
  need(parameters || !function.pointers, CUDA_ERROR_INVALID_VALUE, "no parameters");
  Action action{Action::kKernel};
  action.kernel = {handle, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, {}};
  for (int i = 0; i < function.pointers; ++i) {
    need(parameters[i] != nullptr, CUDA_ERROR_INVALID_VALUE, "a parameter is missing");
    void* pointer = nullptr;
    std::memcpy(&pointer, parameters[i], sizeof pointer);
    action.kernel.pointers.push_back(pointer);
  }
  return action;
}

}  // namespace stand_in

GSB_API CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return unsafe_in_context(
      [&](CUctx_st& context) { load(context, module, static_cast<const char*>(image)); });
}

GSB_API CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned options, void*,
                                    void**) {
  return unsafe_in_context([&](CUctx_st& context) {
    need(options == 0, CUDA_ERROR_NOT_SUPPORTED, "options that the stand-in does not know");
    load(context, module, static_cast<const char*>(image));
  });
}

GSB_API CUresult cuModuleUnload(CUmodule handle) {
  return unsafe_in_context([&](CUctx_st& context) {
    const CUmod_st& module = world().modules.at(handle, "module");
    wait_for_all(context);
    for (const auto& [name, function] : module.functions) world().functions.end(function);
    dlclose(module.library);
    world().modules.end(handle);
  });
}

GSB_API CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return in_context([&](CUctx_st&) {
    const auto& functions = world().modules.at(module, "module").functions;
    need(name != nullptr, CUDA_ERROR_INVALID_VALUE, "no name");
    const auto found = functions.find(name);
    if (found == functions.end()) fail(CUDA_ERROR_NOT_FOUND, name);
    give(function, found->second);
  });
}

GSB_API CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                unsigned grid_z, unsigned block_x, unsigned block_y,
                                unsigned block_z, unsigned shared_bytes, CUstream stream,
                                void** parameters, void** extra) {
  return in_context([&](CUctx_st& context) {
    CUstream_st& queue = *stream_of(context, stream);
    submit(context, queue,
           launch_of(context, function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z},
                     shared_bytes, parameters, extra));
  });
}
