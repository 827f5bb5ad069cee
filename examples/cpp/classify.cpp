// The likeliest classes of a picture, by any compiled model whose input is (1, 1 or 3, height,
// width).
//
//   classify MODEL.so PICTURE ...
#include <algorithm>
#include <cstdio>
#include <exception>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <gsb_tvm/session.hpp>

#include "image.h"

namespace {

class Classifier {
 public:
  explicit Classifier(const std::string& path) : session_(path) {
    const std::vector<std::int64_t>& shape = session_.inputs()[0].shape;
    const bool is_image = shape.size() == 4 && shape[0] == 1 && (shape[1] == 1 || shape[1] == 3);
    if (!is_image || session_.inputs().size() != 1 || session_.outputs().size() != 1)
      throw std::runtime_error(path + ": is no model that takes one picture and gives one output.");
    picture_.resize(session_.inputs()[0].count);
    logits_.resize(session_.outputs()[0].count);
  }

  // Class numbers, the likeliest first.
  std::vector<std::size_t> classes(const std::string& picture) {
    const std::vector<std::int64_t>& shape = session_.inputs()[0].shape;
    const auto extent = [&](std::size_t axis) { return static_cast<int>(shape[axis]); };
    if (const char* error =
            read_image(picture.c_str(), extent(1), extent(2), extent(3), picture_.data()))
      throw std::runtime_error(picture + ": " + error + ".");
    session_.run({picture_}, {logits_});
    std::vector<std::size_t> order(logits_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return logits_[a] > logits_[b]; });
    return order;
  }

  float logit(std::size_t number) const { return logits_[number]; }

 private:
  gsb_tvm::Session session_;
  std::vector<float> picture_, logits_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: classify MODEL.so PICTURE ...\n", stderr);
    return 2;
  }
  try {
    Classifier classifier(argv[1]);
    for (int i = 2; i < argc; ++i) {
      const std::vector<std::size_t> order = classifier.classes(argv[i]);
      std::printf("%s:", argv[i]);
      for (std::size_t j = 0; j < std::min<std::size_t>(3, order.size()); ++j)
        std::printf(" %zu (%.2f)", order[j], static_cast<double>(classifier.logit(order[j])));
      std::printf("\n");
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
