// Child processes: each measured run gets a clean one, since a process's memory and its loaded plug-ins never
// go back to what they were.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "generate/job.hpp"

namespace generate {

std::filesystem::path executable_path();

// For a process that is to run the job: plain llama.cpp must not see the plug-in, and a plug-in run takes its
// policy from the job alone.
void set_environment(const Job& job, const std::filesystem::path& plugin);

// Whether a signal has asked this process to end since it made a Scratch.
bool is_interrupted();

// A folder for this process's files, removed with the object; from its making on, an interrupt ends the child
// and leaves this process the time to do so.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::filesystem::path file(const std::string& name) const { return folder_ / name; }

 private:
  std::filesystem::path folder_;
};

// Runs `job` in a child and returns its result. `plugin` is loaded exactly if the job has a policy. Throws
// the child's failure: UsageError if the user can put it right.
nlohmann::json run_job(const Job& job, const std::filesystem::path& plugin, const Scratch& scratch);

}  // namespace generate
