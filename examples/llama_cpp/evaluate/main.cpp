// zeromerge-evaluate: what a policy costs in quality, on the user's model and texts.
#include <exception>
#include <iostream>
#include <string_view>

#include "evaluate/continuation.hpp"
#include "evaluate/report.hpp"
#include "generate/error.hpp"
#include "generate/worker.hpp"

namespace {

int run(int argc, char** argv) {
  const auto parsed = evaluate::parse_options(argc, argv);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  const auto& options = std::get<evaluate::Options>(parsed);
  evaluate::Findings findings = evaluate::read_findings(options);
  evaluate::measure_continuation(options, findings, [&] { evaluate::write_findings(options, findings); });
  evaluate::print_table(std::cout, options, findings);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "--worker") return generate::worker_main(argv[2], argv[3]);
  try {
    return run(argc, argv);
  } catch (const generate::UsageError& error) {
    std::cerr << "zeromerge-evaluate: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "zeromerge-evaluate: " << error.what() << '\n';
    return 1;
  }
}
