// What the user asked for, checked as far as it can be without loading anything.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

namespace evaluate {

enum class Measure { continuation, needles, scbench };  // --task

struct Options {
  Measure task = Measure::continuation;
  std::filesystem::path model;
  std::vector<std::filesystem::path> texts;
  std::vector<std::string> policies = {"zeromerge", "best"};
  std::vector<std::string> budgets = {"5%"};
  bool equal_bytes = false;  // a share is one of the full f16 cache's bytes, else of its entries
  std::int32_t prompt_tokens = 2048;
  std::int32_t predict = 128;
  bool asked_in = false;   // needles: questions stand in the prompt, else they follow its compression
  std::int32_t seeds = 1;  // needles, scbench: draws
  std::int32_t threads = 0;
  std::filesystem::path json;  // empty: none
  std::filesystem::path html;  // likewise
  std::string heads_policy;    // whose heads are mapped, for the first text; empty: nobody's
  std::string heads_budget;
  std::string command;  // as it was called
  std::filesystem::path plugin;
};

// The options, or the exit code of a run that is over (--help). Throws generate::UsageError.
std::variant<Options, int> parse_options(int argc, char** argv);

}  // namespace evaluate
