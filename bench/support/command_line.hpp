// What the benches of one layer's attention share on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "support/harness.hpp"
#include "support/shapes.hpp"

namespace bench {

struct CommonOptions {
  std::vector<std::string> shapes;  // by their text; empty: all
  std::vector<std::size_t> threads = {1};
  Effort effort;
  std::string json;
};

// --shape, --threads, --repetitions, --seconds, --json.
void add_common(CLI::App& app, CommonOptions& options, const std::vector<Shape>& shapes);

// Of `shapes` those that were named.
std::vector<Shape> chosen(const std::vector<Shape>& shapes, const CommonOptions& options);

// Parses and runs; the program's exit code: 2 for a wrong command line, 1 for what run throws.
int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& run);

}  // namespace bench
