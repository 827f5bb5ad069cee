// Reading the lines of a descriptor: gsb_tvm/runtime/descriptor.py has the grammar.
#ifndef GSB_TVM_DETAIL_LINES_HPP_
#define GSB_TVM_DETAIL_LINES_HPP_

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

#include "../error.hpp"
#include "../tensor.hpp"

namespace gsb_tvm::detail {

// Takes words and lines off the front of a text.
class Lines {
 public:
  Lines(std::string_view text, const std::string& path) : left_(text), path_(path) {}

  bool is_empty() const noexcept { return left_.empty(); }

  // Whether the next line begins with `key`, which is taken then.
  bool take(std::string_view key) noexcept {
    const bool is_next =
        left_.size() > key.size() && left_.substr(0, key.size()) == key && left_[key.size()] == ' ';
    if (is_next) left_.remove_prefix(key.size() + 1);
    return is_next;
  }

  void expect(std::string_view key) {
    if (!take(key)) fail("no " + std::string(key));
  }

  // The next word, which another follows on the line or which ends it.
  std::string_view word() {
    const std::size_t end = left_.find_first_of(" \n");
    if (end == 0 || end == std::string_view::npos) fail("a line ends early");
    const std::string_view found = left_.substr(0, end);
    left_.remove_prefix(left_[end] == ' ' ? end + 1 : end);
    return found;
  }

  std::uint64_t number(std::uint64_t most = most_bytes) {
    const std::string_view text = word();
    std::uint64_t value = 0;
    const char* const end = text.data() + text.size();
    const std::from_chars_result read = std::from_chars(text.data(), end, value);
    if (read.ec != std::errc() || read.ptr != end || value > most)
      fail("\"" + std::string(text) + "\" is no number up to " + std::to_string(most));
    return value;
  }

  // The rest of the line, unescaped.
  std::string rest() {
    const std::size_t end = left_.find('\n');
    if (end == std::string_view::npos) fail("a line ends early");
    const std::string_view line = left_.substr(0, end);
    left_.remove_prefix(end + 1);
    return unescaped(line);
  }

  void end_line() {
    if (!rest().empty()) fail("a line has too many words");
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::damaged,
                path_ + ": the descriptor is damaged (" + what + "). Compile the model again.");
  }

 private:
  std::string unescaped(std::string_view text) const {
    std::string made;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '%') {
        made += text[i];
        continue;
      }
      unsigned value = 0;
      const char* const digits = text.data() + i + 1;
      if (text.size() - i < 3 || std::from_chars(digits, digits + 2, value, 16).ptr != digits + 2)
        fail("no two digits behind a %");
      made += static_cast<char>(value);
      i += 2;
    }
    return made;
  }

  std::string_view left_;
  const std::string& path_;
};

}  // namespace gsb_tvm::detail

#endif  // GSB_TVM_DETAIL_LINES_HPP_
