// A program around gsb_tvm::CudaSession; the first argument says what it does.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include <gsb_tvm/cuda_session.hpp>
#include <gsb_tvm/session.hpp>

#include "gpu.hpp"

namespace {

using Words = std::vector<std::string>;
using Values = std::vector<float>;

Values contents(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) std::exit(3);
  Values made;
  for (float value; std::fread(&value, sizeof value, 1, file) == 1;) made.push_back(value);
  std::fclose(file);
  return made;
}

void write(const std::string& path, const Values& data) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file || std::fwrite(data.data(), sizeof(float), data.size(), file) != data.size())
    std::exit(3);
  std::fclose(file);
}

void print(const char* kind, const gsb_tvm::TensorInfo& tensor) {
  std::printf("%s %s %s", kind, tensor.name.c_str(), name(tensor.dtype));
  for (const std::int64_t extent : tensor.shape)
    std::printf(" %lld", static_cast<long long>(extent));
  std::printf("\n");
}

// describe MODEL
void describe(const Words& words) {
  const gsb_tvm::CudaSession session = gsb_tvm::CudaSession::load(words[0]);
  std::printf("%s\n%s\n%s\n", session.model().c_str(), session.target().c_str(),
              session.compiler().c_str());
  std::printf("GPU %d, %zu bytes\n", session.gpu(), session.memory_bytes());
  std::printf("batches");
  for (const std::int64_t batch : session.batches())
    std::printf(" %lld", static_cast<long long>(batch));
  std::printf("\n");
  for (const gsb_tvm::TensorInfo& tensor : session.inputs()) print("input", tensor);
  for (const gsb_tvm::TensorInfo& tensor : session.outputs()) print("output", tensor);
}

std::vector<std::int64_t> shape_of(const gsb_tvm::TensorInfo& tensor, std::int64_t batch) {
  std::vector<std::int64_t> shape = tensor.shape;
  shape[0] *= batch;
  return shape;
}

// run MODEL BATCH INPUT OUTPUT: a call of BATCH images, from the host and again on the GPU.
void run(const Words& words) {
  const gsb_tvm::CudaSession session(words[0]);
  const std::int64_t batch = std::stoll(words[1]);
  const gsb_tvm::TensorInfo &input = session.inputs()[0], &output = session.outputs()[0];
  const Values given = contents(words[2]);
  Values made(output.count * static_cast<std::size_t>(batch));
  session.run({given}, {made});
  gpu::use(0);
  {
    const gpu::Floats in(given), out(made.size());
    session.run({gsb_tvm::DeviceInput(in.data(), shape_of(input, batch))},
                {gsb_tvm::DeviceOutput(out.data(), shape_of(output, batch))});
    CHECK(out.read() == made);
  }
  gpu::stop_using(0);
  write(words[3], made);
}

// load GPU MODEL ...: for each the number of the error and its sentence, or "loaded".
void load(const Words& words) {
  for (std::size_t i = 1; i < words.size(); ++i) try {
      gsb_tvm::CudaSession session(words[i], std::stoi(words[0]));
      std::printf("loaded\n");
    } catch (const gsb_tvm::Error& error) {
      std::printf("%d %s\n", static_cast<int>(error.code()), error.what());
    }
}

// load-on-cpu MODEL: the same by gsb_tvm::Session.
void load_on_cpu(const Words& words) {
  try {
    gsb_tvm::Session session(words[0]);
    std::printf("loaded\n");
  } catch (const gsb_tvm::Error& error) {
    std::printf("%d %s\n", static_cast<int>(error.code()), error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const std::string verb = argv[1];
  const Words words(argv + 2, argv + argc);
  try {
    if (verb == "describe")
      describe(words);
    else if (verb == "run")
      run(words);
    else if (verb == "load")
      load(words);
    else if (verb == "load-on-cpu")
      load_on_cpu(words);
    else
      return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
