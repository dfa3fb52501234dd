// zeromerge-replay: runs a trace of the reference implementation through the cache and compares every step.
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "program.hpp"

int main(int argc, char** argv) {
  CLI::App app(
      "Replays a ZeroMerge trace and prints the largest absolute differences as one line of JSON.\n"
      "Exit code: 0 all within 1e-4, 1 not, 2 bad input.");
  std::string trace;
  std::string policy;
  app.add_option("TRACE", trace, "the trace's JSON file")->required();
  app.add_option("--policy", policy, "a policy's spec (default: the trace's own parameters, reference=1)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? replay::kAgrees : replay::kBadInput;
  }
  return replay::run(trace, policy, std::cout, std::cerr);
}
