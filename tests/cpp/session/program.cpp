// A program around gsb_tvm::Session; the first argument says what it does.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include <gsb_tvm/session.hpp>

namespace {

using Words = std::vector<std::string>;

std::vector<char> contents(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) std::exit(3);
  std::vector<char> made;
  for (int c; (c = std::fgetc(file)) != EOF;) made.push_back(static_cast<char>(c));
  std::fclose(file);
  return made;
}

void write(const std::string& path, const std::vector<char>& data) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file || std::fwrite(data.data(), 1, data.size(), file) != data.size()) std::exit(3);
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
  const gsb_tvm::Session session = gsb_tvm::Session::load(words[0], 3);
  std::printf("%s\n%s\n%s\n", session.model().c_str(), session.target().c_str(),
              session.compiler().c_str());
  std::printf("%d threads, %zu bytes\n", session.threads(), session.memory_bytes());
  std::printf("batches");
  for (const std::int64_t batch : session.batches())
    std::printf(" %lld", static_cast<long long>(batch));
  std::printf("\n");
  for (const gsb_tvm::TensorInfo& tensor : session.inputs()) print("input", tensor);
  for (const gsb_tvm::TensorInfo& tensor : session.outputs()) print("output", tensor);
}

// run MODEL THREADS BATCH INPUTS OUTPUTS: calls of BATCH images, until the file of inputs ends.
void run(const Words& words) {
  const gsb_tvm::Session session(words[0], std::stoi(words[1]));
  const std::size_t batch = std::stoul(words[2]);
  const std::vector<char> given = contents(words[3]);
  std::vector<char> made;
  for (std::size_t at = 0; at < given.size();) {
    std::vector<gsb_tvm::Input> inputs;
    for (const gsb_tvm::TensorInfo& tensor : session.inputs()) {
      const std::size_t size = tensor.size_bytes() * batch;
      if (size > given.size() - at) std::exit(4);
      inputs.push_back(gsb_tvm::Input::bytes(&given[at], size));
      at += size;
    }
    std::vector<std::vector<char>> buffers;
    for (const gsb_tvm::TensorInfo& tensor : session.outputs())
      buffers.emplace_back(tensor.size_bytes() * batch);
    std::vector<gsb_tvm::Output> outputs;
    for (std::vector<char>& buffer : buffers)
      outputs.push_back(gsb_tvm::Output::bytes(buffer.data(), buffer.size()));
    session.run(inputs, outputs);
    for (const std::vector<char>& buffer : buffers)
      made.insert(made.end(), buffer.begin(), buffer.end());
  }
  write(words[4], made);
}

// load MODEL ...: for each the number of the error and its sentence, or "loaded".
void load(const Words& words) {
  for (const std::string& path : words) try {
      gsb_tvm::Session session(path);
      std::printf("loaded\n");
    } catch (const gsb_tvm::Error& error) {
      std::printf("%d %s\n", static_cast<int>(error.code()), error.what());
    }
}

// threads MODEL IMAGE LOGITS CALLERS RUNS THREADS: RUNS calls in all, by some threads at once.
void threads(const Words& words) {
  const gsb_tvm::Session session(words[0], std::stoi(words[5]));
  const std::vector<char> image = contents(words[1]), expected = contents(words[2]);
  const int callers = std::stoi(words[3]), runs = std::stoi(words[4]);
  std::vector<std::thread> started;
  for (int i = 0; i < callers; ++i)
    started.emplace_back([&] {
      std::vector<char> logits(expected.size());
      for (int run = 0; run < runs / callers; ++run) {
        std::memset(logits.data(), 0, logits.size());
        session.run({gsb_tvm::Input::bytes(image.data(), image.size())},
                    {gsb_tvm::Output::bytes(logits.data(), logits.size())});
        if (logits != expected) std::abort();
      }
    });
  for (std::thread& thread : started) thread.join();
}

// forks MODEL CHILDREN: processes forked while other threads call; each makes a call of its own.
// The model takes three floats and gives a float and an int32.
void forks(const Words& words) {
  const gsb_tvm::Session session(words[0]);
  const auto call = [&] {
    const float x[3] = {};
    float sum[1];
    std::int32_t batch[1];
    session.run({x}, {sum, batch});
  };
  std::atomic<bool> ends{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i)
    callers.emplace_back([&] {
      while (!ends) call();
    });
  int stopped = 0;
  for (int left = std::stoi(words[1]); left > 0 && !stopped; --left) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      call();
      _exit(0);
    }
    waitpid(child, &stopped, 0);
  }
  ends = true;
  for (std::thread& caller : callers) caller.join();
  if (stopped) std::exit(5);
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
    else if (verb == "threads")
      threads(words);
    else if (verb == "forks")
      forks(words);
    else
      return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
