// What gsb_tvm::CudaSession promises, on a model from x (1, 5, 40) to y (1, 5, 24): MODEL X Y [-].
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <gsb_tvm/cuda_session.hpp>
#include <gsb_tvm/dlpack.hpp>

#include "gpu.hpp"

namespace {

using gsb_tvm::CudaInput;
using gsb_tvm::CudaOutput;
using gsb_tvm::CudaSession;
using gsb_tvm::DeviceInput;
using gsb_tvm::DeviceOutput;
using gsb_tvm::Dtype;
using gsb_tvm::Error;
using gsb_tvm::ErrorCode;
using gsb_tvm::Tensor;
using Values = std::vector<float>;
using Shape = std::vector<std::int64_t>;

static_assert(std::is_nothrow_move_constructible_v<CudaSession>);
static_assert(std::is_nothrow_move_assignable_v<CudaSession>);
static_assert(!std::is_copy_constructible_v<CudaSession>);
static_assert(!std::is_constructible_v<CudaOutput, const Values&>, "outputs are written");
static_assert(!std::is_constructible_v<CudaOutput, DeviceInput>, "outputs are written");
static_assert(!std::is_constructible_v<DeviceOutput, const float*, Shape>, "outputs are written");
static_assert(std::is_constructible_v<CudaInput, DeviceOutput>, "what is written may be read");

const Shape x_shape = {1, 5, 40}, y_shape = {1, 5, 24};
constexpr std::size_t x_count = 200, y_count = 120;

DeviceInput x_at(const gpu::Floats& memory) { return {memory.data(), x_shape}; }
DeviceOutput y_at(const gpu::Floats& memory) { return {memory.data(), y_shape}; }

struct Given {
  std::string path;
  Values x, y;  // as a CPU computes it

  bool holds(const CudaSession& session, gpu::Stream stream = nullptr) const {
    Values made(y_count);
    session.run({x}, {made}, stream);
    return made == y;
  }
};

void from_the_host(const Given& given, const CudaSession& session) {
  Values vector(y_count), raw(y_count);
  session.run({given.x}, {vector});
  CHECK(vector == given.y);
  std::array<float, y_count> array = {};
  session.run({{given.x.data(), given.x.size()}}, {array});
  CHECK(Values(array.begin(), array.end()) == given.y);
  float plain[y_count] = {};
  const std::vector<CudaInput> inputs = {given.x};
  session.run(inputs, std::vector<CudaOutput>{plain});
  CHECK(Values(plain, plain + y_count) == given.y);
  session.run({gsb_tvm::Input::bytes(given.x.data(), 800)},
              {gsb_tvm::Output::bytes(raw.data(), 480)});
  CHECK(raw == given.y);
  Tensor x(Dtype::float32, x_shape);
  std::memcpy(x.data<float>(), given.x.data(), 800);
  const std::vector<Tensor> made = session.run({x});
  CHECK(made.size() == 1 && made[0].shape() == y_shape);
  CHECK(std::memcmp(made[0].data<float>(), given.y.data(), 480) == 0);
}

void on_the_gpu(const Given& given, const CudaSession& session) {
  const gpu::OwnStream stream;
  const gpu::Floats x(given.x), y(y_count);
  CHECK(given.holds(session, stream));  // the stream has its memory
  const std::size_t before = gpu::count("kernels"), graphs = gpu::count("graphs");
  session.run({x_at(x)}, {y_at(y)}, stream);
  CHECK(gpu::count("kernels") == before);  // nobody has waited
  gpu::synchronize(stream);
  CHECK(gpu::count("kernels") > before && y.read() == given.y);
  // Another place, by address; and one tensor on either side.
  const gpu::Floats elsewhere(y_count);
  session.run({DeviceInput(x.address(), Dtype::float32, x_shape)},
              {DeviceOutput(elsewhere.address(), Dtype::float32, y_shape)}, stream);
  gpu::synchronize(stream);
  CHECK(elsewhere.read() == given.y);
  Values made(y_count);
  session.run({x_at(x)}, {made}, stream);
  CHECK(made == given.y);
  gpu::Floats target(y_count);
  session.run({given.x}, {y_at(target)}, stream);
  CHECK(target.read() == given.y);
  CHECK(gpu::count("graphs") == graphs);
}

void one_call_behind_another(const Given& given, const CudaSession& session) {
  const gpu::OwnStream stream;
  Values other = given.x;
  for (float& value : other) value = -value;
  Values expected(y_count);
  session.run({other}, {expected});
  const gpu::Floats one(given.x), two(other), first(y_count), second(y_count);
  for (int i = 0; i < 3; ++i) {
    session.run({x_at(one)}, {y_at(first)}, stream);
    session.run({x_at(two)}, {y_at(second)}, stream);
  }
  gpu::synchronize(stream);
  CHECK(first.read() == given.y && second.read() == expected);
}

void into_a_graph_of_the_callers(const Given& given, const CudaSession& session) {
  const gpu::OwnStream stream;
  gpu::Floats x(given.x);
  const gpu::Floats y(y_count);
  session.run({x_at(x)}, {y_at(y)}, stream);
  gpu::synchronize(stream);
  const std::size_t launched = gpu::count("launched"), kernels = gpu::count("kernels");
  gpu::Recording recording(stream);
  refused(ErrorCode::argument, "\"x\": is in the host's memory, and the stream is recorded into a",
          [&] { session.run({given.x}, {y_at(y)}, stream); });
  session.run({x_at(x)}, {y_at(y)}, stream);
  recording.end();
  x.write(Values(x_count, 0.5f));
  Values expected(y_count);
  session.run({Values(x_count, 0.5f)}, {expected});
  CHECK(gpu::count("launched") == launched + 1);
  const std::size_t of_a_call = gpu::count("kernels") - kernels;
  recording.launch(stream);
  gpu::synchronize(stream);
  CHECK(y.read() == expected);
  CHECK(gpu::count("kernels") == kernels + 2 * of_a_call);
  session.run({given.x}, {y_at(y)}, stream);
  CHECK(y.read() == given.y);
}

// Loading a model and a first call, while somebody records a stream that waits for the default one.
void beside_a_recording(const Given& given) {
  const gpu::OwnStream recorded(gpu::blocking), other;
  gpu::Floats x(given.x), one(y_count), two(y_count);
  {
    gpu::Recording recording(recorded);
    const CudaSession session(given.path);
    session.run({x_at(x)}, {y_at(one)}, recorded);
    std::thread([&] {
      session.run({x_at(x)}, {y_at(two)}, other);
      CHECK(given.holds(CudaSession(given.path), other));
    }).join();
    recording.end();
    recording.launch(recorded);
    gpu::synchronize(recorded);
    CHECK(one.read() == given.y);
    gpu::synchronize(other);
    CHECK(two.read() == given.y);
  }
}

void tensors_of_its_own(const Given& given) {
  auto session = std::make_unique<CudaSession>(given.path);
  gsb_tvm::CudaTensor x = session->tensor(Dtype::float32, x_shape);
  gsb_tvm::CudaTensor y = session->tensor(Dtype::float32, y_shape);
  CHECK(x.dtype() == Dtype::float32 && x.shape() == x_shape && x.count() == x_count);
  Values made(y_count, 1);
  y.download(made);
  CHECK(made == Values(y_count));  // zeros at first
  const gpu::OwnStream stream;
  x.upload(given.x, stream);
  session->run({x}, {y}, stream);
  session.reset();
  y.download(made, stream);
  CHECK(made == given.y);
  const ErrorCode code = ErrorCode::argument;
  gsb_tvm::CudaTensor moved = std::move(y);
  refused(code, "the tensor was moved", [&] { y.download(made); });
  y = std::move(moved);
  y.download(made);
  CHECK(made == given.y);
  refused(code, "elements of float64 are given for a tensor of float32.",
          [&] { x.upload(std::vector<double>(x_count)); });
  refused(code, "480 bytes are given for a tensor of 800.", [&] { x.download(made); });
}

// As dlpack.h has it.
struct DLTensor {
  void* data;
  struct {
    int device_type;
    std::int32_t device_id;
  } device;
  std::int32_t ndim;
  struct {
    std::uint8_t code, bits;
    std::uint16_t lanes;
  } dtype;
  std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};

void tensors_of_frameworks(const Given& given, const CudaSession& session) {
  gpu::Floats x(4 + x_count);
  const gpu::Floats y(y_count);
  Values shifted(4);
  shifted.insert(shifted.end(), given.x.begin(), given.x.end());
  x.write(shifted);
  Shape shape = x_shape, strides = {77, 40, 1}, dense = y_shape;  // nobody goes along 1 row
  DLTensor lent = {x.data(), {2, 0}, 3, {2, 32, 1}, shape.data(), strides.data(), 16};
  const DLTensor written = {y.data(), {2, 0}, 3, {2, 32, 1}, dense.data(), nullptr, 0};
  session.run({gsb_tvm::from_dlpack(lent)}, {gsb_tvm::from_dlpack(written)});
  CHECK(y.read() == given.y);
  const auto reads = [&] { gsb_tvm::from_dlpack(lent); };
  strides = {200, 1, 5};
  refused(ErrorCode::argument, "whose elements do not lie one behind the other.", reads);
  lent.dtype.code = 4;
  refused(ErrorCode::argument, "of type 4 with 32 bits and 1 lanes, which no model has.", reads);
  lent.device.device_type = 1;
  refused(ErrorCode::argument, "on a device of type 1, expected memory of a GPU.", reads);
}

void bad_arguments(const Given& given, const CudaSession& session) {
  const ErrorCode code = ErrorCode::argument;
  const gpu::Floats x(x_count + 1), y(y_count + 1);
  Values host = given.x, made(y_count);
  const auto reads = [&](const CudaInput& input) { session.run({input}, {y_at(y)}); };
  refused(code, "2 inputs are given, expected 1.", [&] { session.run({host, host}, {made}); });
  refused(code, "0 outputs are given, expected 1.", [&] { session.run({host}, {}); });
  refused(code, "input \"x\": 796 bytes are given, expected 800.",
          [&] { reads(Values(199)); });
  refused(code, "input \"x\": elements of float64 are given, expected float32.",
          [&] { reads(std::vector<double>(x_count)); });
  refused(code, "input \"x\": elements of int32 are given, expected float32.",
          [&] { reads(DeviceInput(x.address(), Dtype::int32, x_shape)); });
  refused(code, "input \"x\": shape (5, 40) is given, expected (1, 5, 40).",
          [&] { reads(DeviceInput(x.data(), {5, 40})); });
  refused(code, "input \"x\": the data is not at a multiple of 16 bytes.",
          [&] { reads(DeviceInput(x.data() + 1, x_shape)); });
  refused(code, "output \"y\": the data is not at a multiple of 4 bytes.", [&] {
    session.run({host}, {DeviceOutput(y.address() + 2, Dtype::float32, y_shape)});
  });
  refused(code, "input \"x\": the data is in no memory of a GPU.",
          [&] { reads(DeviceInput(host.data(), x_shape)); });
  refused(code, "output \"y\": shape (120) is given, expected (1, 5, 24).", [&] {
    session.run({host}, {DeviceOutput(y.data(), {120})});
  });
  refused(code, "output \"y\": the data is in no memory of a GPU.", [&] {
    session.run({host}, {DeviceOutput(made.data(), y_shape)});
  });
  const gpu::Stream ended = gpu::OwnStream();
  refused(ErrorCode::driver,
          "NVIDIA's driver: cuStreamIsCapturing fails (CUDA_ERROR_INVALID_HANDLE).",
          [&] { session.run({x_at(x)}, {y_at(y)}, ended); });
  CHECK(given.holds(session));
}

void two_gpus(const Given& given, const CudaSession& session) {
  const gpu::Handle before = gpu::context();
  const CudaSession second(given.path, 1);
  CHECK(second.gpu() == 1 && given.holds(second));
  CHECK(gpu::context() == before);  // the caller's GPU is the caller's
  const gpu::Floats x(given.x);
  refused(ErrorCode::argument,
          "input \"x\": the data is on GPU 0, and the model on GPU 1. Move one of them.", [&] {
            Values made(y_count);
            second.run({x_at(x)}, {made});
          });
  CHECK(given.holds(session));
}

void moves(const Given& given) {
  CudaSession first(given.path);
  CudaSession second(std::move(first));
  CHECK(given.holds(second));
  refused(ErrorCode::argument, "the session was moved", [&] { given.holds(first); });
  first = CudaSession::load(given.path);
  CHECK(given.holds(first));
  first = std::move(second);
  CHECK(given.holds(first));
}

// A session ends behind the work that it has put into a stream.
void ends_behind_its_work(const Given& given) {
  const gpu::OwnStream stream;
  const gpu::Floats x(given.x), y(y_count);
  auto session = std::make_unique<CudaSession>(given.path);
  session->run({x_at(x)}, {y_at(y)}, stream);
  session.reset();
  CHECK(y.read() == given.y);
}

// Handles of streams that ended come back, for streams that do not wait for the old ones' work.
void streams_come_and_go(const Given& given, const CudaSession& session) {
  const gpu::Floats x(given.x), y(y_count);
  for (int i = 0; i < 5; ++i) {
    const gpu::OwnStream stream;
    session.run({x_at(x)}, {y_at(y)}, stream);
  }
  const gpu::OwnStream last;
  CHECK(given.holds(session, last));
}

void call_some_times(const Given& given, const CudaSession& session, gpu::Stream stream) {
  const gpu::Floats x(given.x), y(y_count);
  for (int run = 0; run < 5; ++run) {
    CHECK(given.holds(session, stream));
    session.run({x_at(x)}, {y_at(y)}, stream);
    gpu::synchronize(stream);
    CHECK(y.read() == given.y);
  }
}

void callers_at_once(const Given& given, const CudaSession& session) {
  const gpu::OwnStream shared, one, two;
  const gpu::Stream of_thread = gpu::stream_of_thread();
  const std::vector<gpu::Stream> streams = {shared, shared, of_thread, of_thread, one, two};
  std::vector<std::thread> callers;
  for (const gpu::Stream stream : streams)
    callers.emplace_back([&, stream] {
      gpu::use(0);
      call_some_times(given, session, stream);
      gpu::stop_using(0);
    });
  for (std::thread& caller : callers) caller.join();
}

void in_a_child(const CudaSession& session) {
  const pid_t child = fork();
  if (child == 0) {
    refused(ErrorCode::argument, "the process was forked, and CUDA stays with its parent.",
            [&] { session.run({Values(x_count)}, {Values(y_count)}); });
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const Given given = {argv[1], numbers(argv[2], x_count), numbers(argv[3], y_count)};
  gpu::use(0);
  {
    const CudaSession session(given.path);
    from_the_host(given, session);
    on_the_gpu(given, session);
    one_call_behind_another(given, session);
    into_a_graph_of_the_callers(given, session);
    beside_a_recording(given);
    tensors_of_its_own(given);
    tensors_of_frameworks(given, session);
    bad_arguments(given, session);
    two_gpus(given, session);
    moves(given);
    ends_behind_its_work(given);
    streams_come_and_go(given, session);
    callers_at_once(given, session);
    if (argc == 4) in_a_child(session);  // thread sanitizers know no threads behind fork
  }
  gpu::stop_using(0);
  for (const char* kind : {"allocations", "modules", "graphs", "executables", "events", "contexts"})
    CHECK(gpu::count(kind) == 0);
  std::puts("ok");
}
