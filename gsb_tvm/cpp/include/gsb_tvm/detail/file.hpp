// A file that is read in pieces. Not mapped: one that is cut while it is read would end the
// program.
#ifndef GSB_TVM_DETAIL_FILE_HPP_
#define GSB_TVM_DETAIL_FILE_HPP_

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>

#include "../error.hpp"

namespace gsb_tvm::detail {

class File {
 public:
  // Throws Error where there is no file that can be read. A pipe must not wait for its writer.
  explicit File(const std::string& path)
      : path_(path), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd_ < 0) fail_to_read(errno);
    struct stat found = {};
    const bool is_file = fstat(fd_, &found) == 0 && S_ISREG(found.st_mode);
    size_ = static_cast<std::uint64_t>(found.st_size);
    if (is_file) return;
    close(fd_);
    fail(ErrorCode::file, "not a file.");
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { close(fd_); }

  const std::string& path() const noexcept { return path_; }
  std::uint64_t size() const noexcept { return size_; }

  // Read exactly `size` bytes from `offset` on.
  void read(void* data, std::size_t size, std::uint64_t offset) const {
    char* at = static_cast<char*>(data);
    while (size > 0) {
      const ssize_t got = pread(fd_, at, size, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail_to_read(errno);
      if (got == 0) fail(ErrorCode::damaged, "cut off while it was read. Copy it again.");
      at += got;
      size -= static_cast<std::size_t>(got);
      offset += static_cast<std::uint64_t>(got);
    }
  }

  [[noreturn]] void fail(ErrorCode code, const std::string& what) const {
    throw Error(code, path_ + ": " + what);
  }

 private:
  [[noreturn]] void fail_to_read(int error) const {
    fail(ErrorCode::file, "cannot be read (" + std::generic_category().message(error) + ").");
  }

  std::string path_;
  int fd_;
  std::uint64_t size_ = 0;
};

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_FILE_HPP_
