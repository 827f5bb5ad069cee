// Serves a compiled model on a local port: several threads, one session.
//
//   server MODEL.so PORT [WORKERS]
//
// A client sends the input's bytes and gets the output's bytes, as often as it likes on one
// connection. Port 0 lets the system choose; the first line printed names it. Ends with SIGINT or
// SIGTERM when the answers under way are sent.
#include <arpa/inet.h>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <netinet/in.h>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gsb_tvm/session.hpp>

namespace {

// A file descriptor that is closed with its owner.
class Socket {
 public:
  explicit Socket(int fd) noexcept : fd_(fd) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const noexcept { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::generic_category().message(errno) + ".");
}

// Fills `bytes` bytes; false where the client has no more.
bool receive(int fd, void* data, std::size_t bytes) {
  return recv(fd, data, bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes);
}

bool send_all(int fd, const void* data, std::size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t sent = send(fd, at, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent;
    bytes -= static_cast<std::size_t>(sent);
  }
  return true;
}

// The bytes that the model takes and gives for one image.
struct Image {
  explicit Image(const gsb_tvm::Session& session)
      : input(session.inputs()[0].size_bytes()), output(session.outputs()[0].size_bytes()) {}

  void run(const gsb_tvm::Session& session) {
    session.run({gsb_tvm::Input::bytes(input.data(), input.size())},
                {gsb_tvm::Output::bytes(output.data(), output.size())});
  }

  std::vector<char> input, output;
};

// Workers share the session and the socket on which clients come.
class Server {
 public:
  Server(const gsb_tvm::Session& session, int listening)
      : session_(session), listening_(listening) {}

  // Takes clients until the server stops.
  void work() {
    for (;;) {
      const Socket client(accept(listening_, nullptr, nullptr));
      if (stops_) return;
      try {
        if (client.fd() >= 0)
          serve(client.fd());
        else if (errno != EINTR && errno != ECONNABORTED)
          fail("accept");
      } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        std::this_thread::sleep_for(std::chrono::milliseconds(100));  // what lacks may come back
      }
    }
  }

  void stop() {
    stops_ = true;
    shutdown(listening_, SHUT_RDWR);
  }

 private:
  // Answers one client until it leaves.
  void serve(int client) const {
    // One that neither speaks nor listens for a while must not keep a worker for ever.
    const timeval patience = {2, 0};
    for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO})
      setsockopt(client, SOL_SOCKET, option, &patience, sizeof patience);
    Image image(session_);
    while (!stops_ && receive(client, image.input.data(), image.input.size())) {
      image.run(session_);
      if (!send_all(client, image.output.data(), image.output.size())) return;
    }
  }

  const gsb_tvm::Session& session_;
  int listening_;
  std::atomic<bool> stops_{false};
};

int listen_on(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const int again = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &again, sizeof again);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(fd, generic, sizeof address) || listen(fd, 64)) fail("port " + std::to_string(port));
  socklen_t size = sizeof address;
  getsockname(fd, generic, &size);
  std::printf("127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return fd;
}

void run(const std::string& path, int port, int workers) {
  // Signals wait for this thread; those that are started from here on never see them.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);

  const gsb_tvm::Session session(path);
  if (session.inputs().size() != 1 || session.outputs().size() != 1)
    throw std::runtime_error(path + ": has several inputs or outputs, expected one of each.");
  // A model that takes no single image is an error here, not in a worker.
  Image(session).run(session);
  const Socket listening(listen_on(port));
  Server server(session, listening.fd());
  std::vector<std::thread> threads;
  for (int i = 0; i < workers; ++i) threads.emplace_back([&] { server.work(); });
  int received = 0;
  sigwait(&stop, &received);
  server.stop();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int argc, char** argv) {
  const int port = argc > 2 ? std::atoi(argv[2]) : -1;
  const int workers = argc > 3 ? std::atoi(argv[3]) : 4;
  if (argc > 4 || port < 0 || port > 65535 || workers < 1) {
    std::fputs("usage: server MODEL.so PORT [WORKERS]\n", stderr);
    return 2;
  }
  try {
    run(argv[1], port, workers);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
