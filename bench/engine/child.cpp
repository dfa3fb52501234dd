#include "engine/child.hpp"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "generate/error.hpp"

namespace bench {
namespace {

// A session of its own brings a scheduling group of its own: a contender competes with other work on the
// machine as one process, whatever the terminal that started it does.
[[noreturn]] void become(const Contender& contender, const std::filesystem::path& plugin, int socket) {
  setsid();
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  generate::set_environment(contender.job, plugin);
  dup2(socket, STDIN_FILENO);
  dup2(socket, STDOUT_FILENO);
  if (contender.command.empty()) {
    const std::string executable = generate::executable_path().string();
    execl(executable.c_str(), executable.c_str(), "--decoder", static_cast<char*>(nullptr));
  } else {
    const std::string command = "exec " + contender.command;
    execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
  }
  _exit(127);
}

}  // namespace

Child::Child(const Contender& contender, const std::filesystem::path& plugin) : name_(contender.name) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::runtime_error(std::string("no socket pair: ") + std::strerror(errno));
  process_ = fork();
  if (process_ == 0) become(contender, plugin, ends[1]);
  close(ends[1]);
  socket_ = ends[0];
  if (process_ < 0)
    throw std::runtime_error(std::string("no process could be started: ") + std::strerror(errno));
}

Child::Child(Child&& other) noexcept
    : name_(std::move(other.name_)),
      process_(std::exchange(other.process_, -1)),
      socket_(std::exchange(other.socket_, -1)),
      received_(std::move(other.received_)) {}

// It has nothing left to do that would be worth waiting for.
Child::~Child() {
  // Before the end of its input, at which a rival may take its leave at length.
  if (process_ > 0) kill(process_, SIGTERM);
  if (socket_ >= 0) close(socket_);
  if (process_ <= 0) return;
  while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

nlohmann::json Child::ask(const nlohmann::json& request) {
  send_line(request.dump() + '\n');
  const nlohmann::json answer = nlohmann::json::parse(receive_line(), nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) throw std::runtime_error(name_ + ": its process answers what is not JSON");
  if (answer.contains("error")) {
    const std::string message = answer["error"];
    if (answer.value("usage", false)) throw generate::UsageError(message);
    throw std::runtime_error(name_ + ": " + message);
  }
  return answer;
}

void Child::send_line(const std::string& line) {
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t count = send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (generate::is_interrupted()) throw std::runtime_error("interrupted");
    if (count < 0 && errno != EINTR) fail_as_ended();
    if (count > 0) sent += static_cast<std::size_t>(count);
  }
}

std::string Child::receive_line() {
  for (;;) {
    if (const std::size_t end = received_.find('\n'); end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return line;
    }
    char buffer[4096];
    const ssize_t count = read(socket_, buffer, sizeof buffer);
    if (generate::is_interrupted()) throw std::runtime_error("interrupted");
    if (count == 0 || (count < 0 && errno != EINTR)) fail_as_ended();
    if (count > 0) received_.append(buffer, static_cast<std::size_t>(count));
  }
}

void Child::fail_as_ended() {
  int status = 0;
  waitpid(std::exchange(process_, -1), &status, 0);
  throw std::runtime_error(name_ + ": its process ended" +
                           (WIFSIGNALED(status) ? std::string(" by signal ") + strsignal(WTERMSIG(status))
                                                : " with exit code " + std::to_string(WEXITSTATUS(status))));
}

}  // namespace bench
