// How programs of tests say that a promise is not kept: they end with 1.
#pragma once
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <gsb_tvm/error.hpp>

#define CHECK(condition)                                           \
  do {                                                             \
    if (!(condition)) {                                            \
      std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      std::exit(1);                                                \
    }                                                              \
  } while (0)

// Floats of a file.
inline std::vector<float> numbers(const char* path, std::size_t count) {
  std::vector<float> made(count);
  std::FILE* file = std::fopen(path, "rb");
  CHECK(file && std::fread(made.data(), sizeof(float), count, file) == count);
  std::fclose(file);
  return made;
}

// That `call` throws an Error with this code, in these words.
template <class Call>
void refused(gsb_tvm::ErrorCode code, const std::string& words, Call call) {
  try {
    call();
  } catch (const gsb_tvm::Error& error) {
    if (error.code() == code && std::string(error.what()).find(words) != std::string::npos) return;
    std::fprintf(stderr, "%d: %s\n", static_cast<int>(error.code()), error.what());
  }
  std::fprintf(stderr, "expected: %s\n", words.c_str());
  std::exit(1);
}
