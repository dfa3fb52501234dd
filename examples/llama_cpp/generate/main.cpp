// zeromerge-generate: continues a prompt with llama.cpp under a compression policy, and says what the policy
// costs and saves: speed, memory, and how far the predictions move from plain llama.cpp's.
#include <fstream>
#include <iostream>

#include "generate/options.hpp"
#include "generate/plan.hpp"
#include "generate/program.hpp"

namespace {

void write_json(const generate::Options& options, const generate::Report& report) {
  if (options.json.empty()) return;
  const std::string text = to_json(report).dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  if (!(std::ofstream(options.json) << text << '\n' << std::flush)) {
    throw std::runtime_error("--json: " + options.json.string() + " cannot be written");
  }
}

int run(int argc, char** argv) {
  const auto parsed = generate::parse_options(argc, argv);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  const auto& options = std::get<generate::Options>(parsed);
  const generate::Report report = generate::measure(options);
  print_table(std::cout, report);
  write_json(options, report);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return generate::program_main("zeromerge-generate", argc, argv, run); }
