// What the user asked for, checked as far as it can be without loading anything.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>

namespace generate {

struct Options {
  std::filesystem::path model;
  std::filesystem::path prompt_file;  // empty: `prompt` is the text
  std::string prompt;
  std::int32_t predict = 128;
  std::int32_t ctx = 0;             // 0: the prompt and the prediction, rounded up to a multiple of 256
  std::int32_t threads = 0;         // decode
  std::int32_t prompt_threads = 0;  // 0: as many
  std::string policy;
  bool compare = false;
  bool reclaim = false;
  std::filesystem::path json;  // empty: none
  std::filesystem::path plugin;
};

// The options, or the exit code of a run that is over (--help). Throws UsageError.
std::variant<Options, int> parse_options(int argc, char** argv);

}  // namespace generate
