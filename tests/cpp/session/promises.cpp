// What gsb_tvm::Session promises, on the demo model: MODEL IMAGE LOGITS [-].
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <gsb_tvm/session.hpp>

#include "../promising.hpp"

namespace {

using gsb_tvm::Dtype;
using gsb_tvm::Error;
using gsb_tvm::ErrorCode;
using gsb_tvm::Input;
using gsb_tvm::Output;
using gsb_tvm::Session;
using gsb_tvm::Tensor;
using Floats = std::vector<float>;

static_assert(std::is_nothrow_move_constructible_v<Session>);
static_assert(std::is_nothrow_move_assignable_v<Session>);
static_assert(!std::is_copy_constructible_v<Session>);
static_assert(!std::is_constructible_v<Output, const Floats&>, "outputs are written");
static_assert(!std::is_constructible_v<Input, std::vector<bool>&>, "has no bytes");
static_assert(gsb_tvm::dtype_of<long>() == Dtype::int64);
static_assert(gsb_tvm::dtype_of<const unsigned char>() == Dtype::uint8);

struct Given {
  std::string path;
  Floats image, logits;

  bool holds(const Session& session) const {
    Floats made(logits.size());
    session.run({image}, {made});
    return made == logits;
  }
};

void numbers_from_anywhere(const Given& given, const Session& session) {
  Floats vector(10);
  session.run({given.image}, {vector});
  CHECK(vector == given.logits);
  std::array<float, 10> array = {};
  session.run({{given.image.data(), given.image.size()}}, {array});
  CHECK(Floats(array.begin(), array.end()) == given.logits);
  float plain[10] = {};
  const std::vector<Input> inputs = {given.image};
  session.run(inputs, std::vector<Output>{plain});
  CHECK(Floats(plain, plain + 10) == given.logits);
  Floats raw(10);
  session.run({Input::bytes(given.image.data(), 256)}, {Output::bytes(raw.data(), 40)});
  CHECK(raw == given.logits);
  session.run({Floats(given.image)}, {{raw.data(), 10}});  // alive until the call returns
}

void tensors(const Given& given, const Session& session) {
  Tensor image(Dtype::float32, session.inputs()[0].shape);
  std::memcpy(image.data<float>(), given.image.data(), 256);
  const std::vector<Tensor> made = session.run({image});
  CHECK(made.size() == 1 && made[0].shape() == session.outputs()[0].shape);
  CHECK(made[0].dtype() == Dtype::float32 && made[0].count() == 10);
  CHECK(std::memcmp(made[0].data<float>(), given.logits.data(), 40) == 0);
  Tensor logits(Dtype::float32, {1, 10});
  session.run({image}, {logits});
  CHECK(std::memcmp(logits.data<float>(), given.logits.data(), 40) == 0);
  const ErrorCode code = ErrorCode::argument;
  refused(code, "a tensor of float32 is read as int32.", [&] { image.data<int>(); });
  refused(code, "input \"image\": shape (8, 8) is given, expected (1, 1, 8, 8).", [&] {
    session.run({Tensor(Dtype::float32, {8, 8})});
  });
  refused(code, "input \"image\": elements of int32 are given, expected float32.", [&] {
    session.run({Tensor(Dtype::int32, {1, 1, 8, 8})});
  });
  refused(code, "0 inputs are given, expected 1.", [&] { session.run(std::vector<Tensor>()); });
  refused(code, "an extent of -1 is asked for", [] { Tensor(Dtype::int8, {2, -1}); });
  const std::int64_t huge = std::int64_t{1} << 62;
  using Shape = std::vector<std::int64_t>;
  for (const Shape& shape : {Shape{huge, 4}, Shape{huge}, Shape{huge, huge}})
    refused(code, "larger than all that a process can address",
            [&] { Tensor(Dtype::float32, shape); });
}

void bad_arguments(const Given& given, const Session& session) {
  const ErrorCode code = ErrorCode::argument;
  Floats image = given.image, logits(10);
  std::vector<double> doubles(64);
  const Floats short_image(63);
  refused(code, "2 inputs are given, expected 1.", [&] { session.run({image, image}, {logits}); });
  refused(code, "0 outputs are given, expected 1.", [&] { session.run({image}, {}); });
  refused(code, "input \"image\": 252 bytes are given, expected 256.",
          [&] { session.run({short_image}, {logits}); });
  refused(code, "output \"logits\": 256 bytes are given, expected 40.",
          [&] { session.run({image}, {image}); });
  refused(code, "input \"image\": elements of float64 are given, expected float32.",
          [&] { session.run({doubles}, {logits}); });
  const float* const nothing = nullptr;
  refused(code, "input \"image\": the data is null.", [&] {
    session.run({{nothing, 64}}, {logits});
  });
  std::vector<char> bytes(257);
  refused(code, "input \"image\": the data is not aligned for float32.",
          [&] { session.run({Input::bytes(&bytes[1], 256)}, {logits}); });
  CHECK(given.holds(session));
}

void bad_threads(const Given& given) {
  for (const int threads : {-1, 0, 65})
    refused(ErrorCode::argument,
            std::to_string(threads) + " threads are asked for, expected 1 to 64.",
            [&] { Session(given.path, threads); });
}

void moves(const Given& given) {
  Session first(given.path, 2);
  Session second(std::move(first));
  CHECK(given.holds(second));
  refused(ErrorCode::argument, "the session was moved", [&] { given.holds(first); });
  first = Session(given.path);
  CHECK(given.holds(first));
  first = std::move(second);
  CHECK(given.holds(first) && first.threads() == 2);
  std::vector<Session> several;
  for (int i = 0; i < 5; ++i) several.emplace_back(given.path, 1 + i % 2);
  for (const Session& session : several) CHECK(given.holds(session));
}

void any_number_of_threads(const Given& given) {
  for (const int threads : {1, 2, 3, 7, 64}) {
    const Session session(given.path, threads);
    for (int i = 0; i < 6; ++i) {
      CHECK(given.holds(session));
      if (i % 3 == 2) usleep(1000);  // long enough for them to sleep
    }
  }
}

void callers_at_once(const Given& given, const Session& session) {
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&] {
      for (int run = 0; run < 50; ++run) CHECK(given.holds(session));
    });
  for (std::thread& caller : callers) caller.join();
}

void in_a_child(const Given& given, const Session& session) {
  CHECK(given.holds(session));
  const pid_t child = fork();
  if (child == 0) {
    CHECK(given.holds(session) && given.holds(session));
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(given.holds(session));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const Given given = {argv[1], numbers(argv[2], 64), numbers(argv[3], 10)};
  const Session alone(given.path), shared(given.path, 2);
  numbers_from_anywhere(given, alone);
  tensors(given, shared);
  bad_arguments(given, shared);
  bad_threads(given);
  moves(given);
  any_number_of_threads(given);
  callers_at_once(given, alone);
  callers_at_once(given, shared);
  if (argc == 4) in_a_child(given, shared);  // thread sanitizers know no threads behind fork
  std::puts("ok");
}
