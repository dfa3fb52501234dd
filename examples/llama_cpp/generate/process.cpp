#include "generate/process.hpp"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string_view>
#include <vector>

#include "generate/error.hpp"

namespace generate {
namespace {

namespace fs = std::filesystem;

volatile std::sig_atomic_t running_child = 0;
volatile std::sig_atomic_t interrupted = 0;

// The parent outlives an interrupt long enough to remove its files; exec gives the child the default action
// back.
extern "C" void stop_child(int) {
  interrupted = 1;
  if (running_child > 0) kill(static_cast<pid_t>(running_child), SIGTERM);
}

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = stop_child;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
}

[[noreturn]] void become_worker(const Job& job, const fs::path& plugin, const fs::path& job_file,
                                const fs::path& result_file) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  set_environment(job, plugin);
  const std::string executable = executable_path().string();
  execl(executable.c_str(), executable.c_str(), "--worker", job_file.c_str(), result_file.c_str(),
        static_cast<char*>(nullptr));
  _exit(127);
}

int wait_for(pid_t child) {
  int status = 0;
  running_child = child;
  if (interrupted) kill(child, SIGTERM);  // the signal may have come before the child was known
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  running_child = 0;
  return status;
}

std::string describe(int status) {
  if (WIFSIGNALED(status)) return std::string("ended by signal ") + strsignal(WTERMSIG(status));
  return "ended with exit code " + std::to_string(WEXITSTATUS(status));
}

nlohmann::json read_result(const Job& job, const fs::path& result_file, int status) {
  std::ifstream stream(result_file);
  const nlohmann::json result = nlohmann::json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (result.is_object() && result.contains("error")) {
    const std::string message = result["error"];
    if (result.value("usage", false)) throw UsageError(message);
    throw std::runtime_error(job.label + ": " + message);
  }
  if (status != 0 || !result.is_object()) {
    throw std::runtime_error(job.label + ": the process that ran it " + describe(status) +
                             " and left no result");
  }
  return result;
}

}  // namespace

void set_environment(const Job& job, const fs::path& plugin) {
  std::vector<std::string> names{"GGML_BACKEND_PATH", "ZEROMERGE_POLICY", "ZEROMERGE_RECLAIM"};
  for (char** entry = environ; job.policy.empty() && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (text.starts_with("ZEROMERGE_")) names.emplace_back(text.substr(0, text.find('=')));
  }
  for (const std::string& name : names) unsetenv(name.c_str());
  if (!job.policy.empty()) setenv("GGML_BACKEND_PATH", plugin.c_str(), 1);
}

bool is_interrupted() { return interrupted != 0; }

fs::path executable_path() {
  static const fs::path path = fs::read_symlink("/proc/self/exe");
  return path;
}

Scratch::Scratch() {
  std::string name = (fs::temp_directory_path() / "zeromerge-generate.XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) {
    throw std::runtime_error("no folder for temporary files: " + name + ": " + std::strerror(errno) +
                             "; set TMPDIR to a folder that can be written");
  }
  folder_ = name;
  catch_interrupts();
}

Scratch::~Scratch() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

nlohmann::json run_job(const Job& job, const fs::path& plugin, const Scratch& scratch) {
  const fs::path job_file = scratch.file("job.json");
  const fs::path result_file = scratch.file("result.json");
  fs::remove(result_file);
  // A text that is not valid UTF-8 travels with replacement characters.
  const std::string text = nlohmann::json(job).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (!(std::ofstream(job_file) << text << std::flush)) {
    throw std::runtime_error(job_file.string() + " cannot be written; is there space left?");
  }
  std::cout.flush();
  const pid_t child = fork();
  if (child < 0)
    throw std::runtime_error(std::string("no process could be started: ") + std::strerror(errno));
  if (child == 0) become_worker(job, plugin, job_file, result_file);
  const int status = wait_for(child);
  if (interrupted) throw std::runtime_error("interrupted");
  return read_result(job, result_file, status);
}

}  // namespace generate
