// zeromerge-calibrate: measures a model's head profile, for policies that take one (best, heads=profile).
#include <fstream>
#include <iostream>
#include <stdexcept>

#include "calibrate/options.hpp"
#include "calibrate/profile.hpp"
#include "generate/program.hpp"

namespace {

int run(int argc, char** argv) {
  const auto parsed = calibrate::parse_options(argc, argv);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  const auto& options = std::get<calibrate::Options>(parsed);
  const auto levels = calibrate::measure_profile(options);
  std::ofstream file(options.out);
  calibrate::write_profile(file, options, levels);
  if (!file.flush()) throw std::runtime_error("--out: " + options.out.string() + " cannot be written");
  calibrate::print_map(std::cout, levels);
  std::cout << "written: " << options.out.string() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return generate::program_main("zeromerge-calibrate", argc, argv, run); }
