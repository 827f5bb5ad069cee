// The likeliest classes of pictures, on a GPU, where all of them lie side by side: by any model for
// a GPU whose input is (1 or any batch, 1 or 3, height, width).
//
//   classify MODEL.so PICTURE ...
#include <algorithm>
#include <cstdio>
#include <exception>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <gsb_tvm/cuda_session.hpp>

#include "image.h"

namespace {

using Shape = std::vector<std::int64_t>;

class Classifier {
 public:
  explicit Classifier(const std::string& path) : session_(path) {
    const Shape& shape = session_.inputs()[0].shape;
    const bool is_image = shape.size() == 4 && shape[0] == 1 && (shape[1] == 1 || shape[1] == 3);
    if (!is_image || session_.inputs().size() != 1 || session_.outputs().size() != 1)
      throw std::runtime_error(path + ": is no model that takes pictures and gives one output.");
  }

  // Logits of each picture.
  std::vector<std::vector<float>> logits(const std::vector<std::string>& pictures) {
    const std::size_t classes = session_.outputs()[0].count;
    gsb_tvm::CudaTensor images = session_.tensor(gsb_tvm::Dtype::float32, images_of(pictures));
    gsb_tvm::CudaTensor found = session_.tensor(
        gsb_tvm::Dtype::float32, {static_cast<std::int64_t>(pictures.size() * classes)});
    images.upload(pixels(pictures));
    run(images, found, pictures.size());
    std::vector<float> all(found.count());
    found.download(all);  // waits
    std::vector<std::vector<float>> made;
    for (auto at = all.begin(); at != all.end(); at += static_cast<std::ptrdiff_t>(classes))
      made.emplace_back(at, at + static_cast<std::ptrdiff_t>(classes));
    return made;
  }

 private:
  Shape images_of(const std::vector<std::string>& pictures) const {
    Shape shape = session_.inputs()[0].shape;
    shape[0] = static_cast<std::int64_t>(pictures.size());
    return shape;
  }

  std::vector<float> pixels(const std::vector<std::string>& pictures) const {
    const gsb_tvm::TensorInfo& input = session_.inputs()[0];
    const auto extent = [&](std::size_t axis) { return static_cast<int>(input.shape[axis]); };
    std::vector<float> made(pictures.size() * input.count);
    for (std::size_t i = 0; i < pictures.size(); ++i)
      if (const char* error = read_image(pictures[i].c_str(), extent(1), extent(2), extent(3),
                                         &made[i * input.count]))
        throw std::runtime_error(pictures[i] + ": " + error + ".");
    return made;
  }

  // Calls read and write the GPU's memory where it is: one call where the model takes any batch,
  // else one for each picture. None of them waits for another.
  void run(gsb_tvm::CudaTensor& images, gsb_tvm::CudaTensor& found, std::size_t count) const {
    const gsb_tvm::TensorInfo &input = session_.inputs()[0], &output = session_.outputs()[0];
    const std::size_t step = session_.batches().empty() ? 1 : count;
    const auto times = [&](Shape shape) {
      shape[0] *= static_cast<std::int64_t>(step);
      return shape;
    };
    for (std::size_t i = 0; i < count; i += step) {
      const float* const in = static_cast<const float*>(images.data()) + i * input.count;
      float* const out = static_cast<float*>(found.data()) + i * output.count;
      session_.run({gsb_tvm::DeviceInput(in, times(input.shape))},
                   {gsb_tvm::DeviceOutput(out, times(output.shape))});
    }
  }

  gsb_tvm::CudaSession session_;
};

void print(const std::string& picture, const std::vector<float>& logits) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  std::printf("%s:", picture.c_str());
  for (std::size_t i = 0; i < std::min<std::size_t>(3, order.size()); ++i)
    std::printf(" %zu (%.2f)", order[i], static_cast<double>(logits[order[i]]));
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: classify MODEL.so PICTURE ...\n", stderr);
    return 2;
  }
  try {
    const std::vector<std::string> pictures(argv + 2, argv + argc);
    const std::vector<std::vector<float>> logits = Classifier(argv[1]).logits(pictures);
    for (std::size_t i = 0; i < pictures.size(); ++i) print(pictures[i], logits[i]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
