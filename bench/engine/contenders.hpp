// Who is measured: settings of plain llama.cpp, policies through the plug-in, other programs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/options.hpp"
#include "generate/job.hpp"
#include "generate/process.hpp"

namespace bench {

struct Contender {
  std::string name;     // as the table has it
  std::string budget;   // "5%", "416", "100%"; empty: not a matter of budgets
  generate::Job job;    // without a policy: plain llama.cpp
  std::string command;  // of a rival; empty: llama.cpp
  bool empty = false;   // nothing in the cache, whatever the context

  bool plugged() const { return !job.policy.empty(); }
};

inline constexpr const char* kFlash = "llama.cpp flash f16";
inline constexpr const char* kEmpty = "llama.cpp, empty context";
inline constexpr const char* kFull = "full";

// What --settings takes.
std::vector<std::string> setting_names();

// Plain flash attention first, since its cells serve the plug-in's contenders too (depth.hpp). Throws
// generate::UsageError if the plug-in refuses a policy.
class Field {
 public:
  Field(const Options& options, const generate::Scratch& scratch);

  const std::vector<Contender>& contenders() const { return contenders_; }
  // The same text for all, again and again: cut to the context, and never shorter than the copied block.
  std::vector<std::int32_t> prompt(std::int32_t context) const;

 private:
  void add_policy(const std::string& spec, const std::string& name, const std::string& budget);

  const Options& options_;
  const generate::Scratch& scratch_;
  generate::Job base_;
  std::vector<std::int32_t> text_;
  std::vector<Contender> contenders_;
};

}  // namespace bench
