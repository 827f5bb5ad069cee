// An artefact's code in this process.
#ifndef GSB_TVM_DETAIL_LIBRARY_HPP_
#define GSB_TVM_DETAIL_LIBRARY_HPP_

#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>

#include "../error.hpp"
#include "artefact.hpp"

namespace gsb_tvm::detail {

// The path in a spelling of its own: the loader takes a file for loaded when it knows the name, and
// a new artefact under the name of an old one would give the old code. "//" and "/./" mean "/".
inline std::string respelled(const std::string& path) {
  static std::atomic<std::uint64_t> times{0};
  const std::size_t slash = path.rfind('/');
  std::string made = slash == std::string::npos ? "./" : path.substr(0, slash + 1);
  for (std::uint64_t bits = times.fetch_add(1) + 1; bits > 0; bits >>= 1)
    made += bits & 1 ? "./" : "/";
  return made + path.substr(slash + 1);
}

class Library {
 public:
  // Load the file at `path`, of which `header` was read and checked.
  Library(const std::string& path, const SectionHeader& header)
      : path_(path), handle_(dlopen(respelled(path).c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (!handle_) fail();
    try {
      if (std::memcmp(symbol(metadata_symbol), &header, sizeof header) != 0)
        throw Error(ErrorCode::damaged,
                    path_ + ": was replaced while it was loaded. Load it again.");
    } catch (...) {
      dlclose(handle_);
      throw;
    }
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() { dlclose(handle_); }

  void* symbol(const std::string& name) const {
    void* const found = dlsym(handle_, name.c_str());
    if (!found) fail();
    return found;
  }

 private:
  [[noreturn]] void fail() const {
    const char* const said = dlerror();
    throw Error(ErrorCode::loader,
                path_ + ": cannot be loaded (" + (said ? said : "no reason is given") + ").");
  }

  std::string path_;
  void* handle_;
};

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_LIBRARY_HPP_
