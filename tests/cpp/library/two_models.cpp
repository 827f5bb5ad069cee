// Two libraries in one program, through their C++ headers, each on threads of its own.
#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "demo.hpp"
#include "other.hpp"

static std::vector<float> numbers(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

template <class Model>
static int differs(const std::vector<float>& image, const std::vector<float>& expected) {
  Model made(2);
  Model model = std::move(made);
  std::array<float, 10> logits{};
  for (int i = 0; i < 50; ++i) model.run(image, logits);
  float again[10];
  model.run(image, again);
  return std::memcmp(logits.data(), expected.data(), sizeof again) ||
         std::memcmp(again, expected.data(), sizeof again);
}

static bool is_refused() {
  std::vector<float> image(3), logits(10);
  try {
    demo::Model().run(image, logits);
  } catch (const demo::Error& error) {
    return error.status() == DEMO_ERROR_ARGUMENT &&
           std::strstr(error.what(), "3 elements are given, expected 64");
  }
  return false;
}

static bool too_many_threads() {
  try {
    other::Model model(1000);
  } catch (const other::Error& error) {
    return error.status() == OTHER_ERROR_ARGUMENT;
  }
  return false;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const auto image = numbers(argv[1]), first = numbers(argv[2]), second = numbers(argv[3]);
  int wrong = 0, also = 0;
  std::thread thread([&] { also = differs<other::Model>(image, second); });
  wrong = differs<demo::Model>(image, first);
  thread.join();
  if (wrong || also || !is_refused() || !too_many_threads()) return 1;
  std::puts("ok");
}
