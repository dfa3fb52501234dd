// zeromerge-evaluate: what a policy costs in quality, on the user's model and texts.
#include <iostream>

#include "evaluate/continuation.hpp"
#include "evaluate/report.hpp"
#include "generate/program.hpp"

namespace {

int run(int argc, char** argv) {
  const auto parsed = evaluate::parse_options(argc, argv);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  const auto& options = std::get<evaluate::Options>(parsed);
  evaluate::Findings findings = evaluate::read_findings(options);
  evaluate::measure_continuation(options, findings, [&] { evaluate::write_findings(options, findings); });
  evaluate::write_findings(options, findings);  // a page of a finished file has no row that would write it
  evaluate::print_table(std::cout, options, findings);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return generate::program_main("zeromerge-evaluate", argc, argv, run); }
