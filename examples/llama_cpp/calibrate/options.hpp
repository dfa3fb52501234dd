// What the user asked for, checked as far as it can be without loading anything.
#pragma once

#include <cstdint>
#include <filesystem>
#include <variant>
#include <vector>

namespace calibrate {

struct Options {
  std::filesystem::path model;
  std::vector<std::filesystem::path> texts;
  std::filesystem::path out;
  std::vector<double> levels = {0.05, 0.1, 0.2, 0.4};
  std::int32_t prompt_tokens = 2048;
  std::int32_t threads = 0;
  std::filesystem::path plugin;
};

// The options, or the exit code of a run that is over (--help). Throws generate::UsageError.
std::variant<Options, int> parse_options(int argc, char** argv);

}  // namespace calibrate
