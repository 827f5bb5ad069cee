// One call of a shared library: session MODEL.so THREADS INPUT OUTPUT, files of float32.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <vector>

#include <gsb_tvm/session.hpp>

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  try {
    gsb_tvm::Session session(argv[1], std::atoi(argv[2]));
    std::vector<float> input(session.inputs()[0].count), output(session.outputs()[0].count);
    const auto bytes = [](const std::vector<float>& numbers) {
      return static_cast<std::streamsize>(numbers.size() * sizeof(float));
    };
    if (!std::ifstream(argv[3], std::ios::binary)
             .read(reinterpret_cast<char*>(input.data()), bytes(input)))
      return 2;
    session.run({input}, {output});
    std::ofstream out(argv[4], std::ios::binary);
    out.write(reinterpret_cast<const char*>(output.data()), bytes(output));
    return out.flush() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
