// What the engine and the memory bench are asked to measure; checked as far as it can be without loading
// anything.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "support/report.hpp"

namespace bench {

enum class Kind { engine, memory };

struct Options {
  std::filesystem::path model;
  std::filesystem::path plugin;
  std::filesystem::path json;                               // empty: none
  std::vector<std::int32_t> contexts;                       // tokens, each measured on its own
  std::vector<std::string> budgets = {"5%", "10%", "20%"};  // of the policy zeromerge
  std::vector<std::string> policies;                        // besides full and zeromerge at its budgets
  std::vector<std::string> settings;                        // of plain llama.cpp, besides flash-f16
  std::vector<std::string> rivals;                          // NAME=COMMAND, see child.hpp
  std::vector<std::string> empty_rivals;                    // NAME=COMMAND, with nothing in the cache
  std::int32_t predict = 16;                                // decode steps timed at once
  std::int32_t repetitions = 5;
  std::int32_t threads = 1;
  std::int32_t prompt_threads = 0;  // 0: as many
  bool copied = true;               // the past is copied from 512 computed tokens, instead of computed
};

// The options, or the exit code of a run that is over (--help). Throws generate::UsageError.
std::variant<Options, int> parse_options(Kind kind, int argc, char** argv);

// describe_machine() and "threads", "prompt_threads", "model".
Json describe_run(const Options& options);

}  // namespace bench
