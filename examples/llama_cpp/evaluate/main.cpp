// zeromerge-evaluate: what a policy costs in quality, on the user's model and texts.
#include <iostream>

#include "evaluate/continuation.hpp"
#include "evaluate/needles.hpp"
#include "evaluate/report.hpp"
#include "evaluate/scbench.hpp"
#include "generate/program.hpp"

namespace {

int run(int argc, char** argv) {
  const auto parsed = evaluate::parse_options(argc, argv);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  const auto& options = std::get<evaluate::Options>(parsed);
  evaluate::Findings findings = evaluate::read_findings(options);
  const auto changed = [&] { evaluate::write_findings(options, findings); };
  switch (options.task) {
    case evaluate::Measure::continuation:
      evaluate::measure_continuation(options, findings, changed);
      break;
    case evaluate::Measure::needles:
      evaluate::measure_needles(options, findings, changed);
      break;
    case evaluate::Measure::scbench:
      evaluate::measure_scbench(options, findings, changed);
      break;
  }
  changed();  // a page of a finished file has no row that would write it
  evaluate::print_table(std::cout, options, findings);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return generate::program_main("zeromerge-evaluate", argc, argv, run); }
