// A contender's process, kept alive so that its cache is filled once, and asked for bursts of decode steps
// while the others sleep. Lines of JSON travel by its stdin and stdout:
//   -> {"job": {…}, "context": tokens, "copied": bool, "empty": bool, "block_file": path}
//   <- {"tokens", "entries_per_head", "kv_bytes", …}   the cache is full; what is not known is absent
//   -> {"burst": steps}          <- {"seconds": of these steps}, after one that is not timed
//   -> {"statistics": true}      <- as the first answer
//   <- {"error": text, "usage": bool} instead of any answer; end of input: the process ends
// A rival is any program that speaks this; "job" is generate/job.hpp, and its "prompt" holds the tokens.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/contenders.hpp"

namespace bench {

class Child {
 public:
  Child(const Contender& contender, const std::filesystem::path& plugin);
  ~Child();
  Child(Child&& other) noexcept;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  nlohmann::json ask(const nlohmann::json& request);

 private:
  void send_line(const std::string& line);
  std::string receive_line();
  [[noreturn]] void fail_as_ended();

  std::string name_;
  pid_t process_ = -1;
  int socket_ = -1;
  std::string received_;  // after the last line
};

}  // namespace bench
