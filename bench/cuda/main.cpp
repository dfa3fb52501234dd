// How near is a decode step on this device to its memory? Layers in rotation, more than its near cache holds,
// against what a large copy moves in the same time.
#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>

#include "cuda/measure.hpp"
#include "support/report.hpp"

namespace bench {
namespace {

struct Options {
  std::vector<std::string> shapes;
  std::vector<std::size_t> entries = {410, 2048, 8192, 32768};
  std::vector<std::size_t> sequences = {1, 16};
  std::vector<std::string> types = {"f16", "bf16", "q8"};
  std::size_t repetitions = 21;
  std::string json;
};

Report new_report(const DeviceFacts& device) {
  Report report("cuda", {{"query_heads", "q heads"},
                         {"kv_heads", "kv"},
                         {"head_dim", "dim"},
                         {"entries", "entries"},
                         {"sequences", "sequences"},
                         {"type", "type"},
                         {"attention_us", "attention us", "%.1f"},
                         {"gb_per_s", "GB/s"},
                         {"share_of_copy", "of copy", "%.2f"},
                         {"step_us", "step us", "%.1f"},
                         {"step_share_of_copy", "step, of copy", "%.2f"}});
  report.machine() = {{"device", device.name},
                      {"capability", device.capability},
                      {"multiprocessors", device.multiprocessors},
                      {"l2_bytes", device.l2_bytes},
                      {"copy_gb_per_s", device.copy_gb_per_s}};
  report.note(
      "one layer; of copy: keys and values read, per second, by what a copy on the device reads and writes");
  report.note("step: append, attend, scores, eviction with one residual entry, heads at their budget");
  return report;
}

Json row_of(const StepProblem& p, const DeviceFacts& device, const StepTimes& times) {
  const double attention = times.bytes / (times.attention_us * 1e3);
  const double step = times.bytes / (times.step_us * 1e3);
  return {{"query_heads", p.shape.query_heads},
          {"kv_heads", p.shape.kv_heads},
          {"head_dim", p.shape.head_dim},
          {"entries", p.entries},
          {"sequences", p.sequences},
          {"type", p.type},
          {"attention_us", times.attention_us},
          {"gb_per_s", attention},
          {"share_of_copy", attention / device.copy_gb_per_s},
          {"step_us", times.step_us},
          {"step_share_of_copy", step / device.copy_gb_per_s}};
}

void run(const Options& options) {
  const DeviceFacts device = describe_device();
  Report report = new_report(device);
  for (const Shape& shape : kShapes) {
    const auto& wanted = options.shapes;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), shape.text()) == wanted.end()) continue;
    for (const std::size_t sequences : options.sequences)
      for (const std::size_t entries : options.entries)
        for (const std::string& type : options.types) {
          const StepProblem problem{shape, type, entries, sequences};
          report.add(row_of(problem, device, measure_step(problem, options.repetitions)));
        }
    report.write(options.json);  // a run that is stopped leaves what it has
  }
  report.print(std::cout);
}

void add_options(CLI::App& app, Options& options) {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) names.push_back(shape.text());
  app.add_option("--shape", options.shapes, "query heads/kv heads x head_dim (default: all)")
      ->check(CLI::IsMember(names))
      ->delimiter(',');
  app.add_option("--entries", options.entries, "of each head")
      ->check(CLI::Range(40, 1 << 22))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--sequences", options.sequences, "in a batch")
      ->check(CLI::Range(1, 4096))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--type", options.types, "f16, bf16, q8")
      ->check(CLI::IsMember({"f16", "bf16", "q8"}))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--repetitions", options.repetitions, "of each replay")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--json", options.json, "write the rows to this file");
}

}  // namespace
}  // namespace bench

// 0; 1 for what went wrong, 2 for a wrong command line, 3 where there is no device.
int main(int argc, char** argv) {
  CLI::App app("How near a decode step on a CUDA device is to its memory");
  bench::Options options;
  bench::add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (const std::string reason = bench::why_no_device(); !reason.empty()) {
    std::cerr << "bench cuda: there is no CUDA device here (" << reason
              << "), so nothing was measured; what to expect of one is in "
                 "include/zeromerge/kernels/cuda/README.md\n";
    return 3;
  }
  try {
    bench::run(options);
  } catch (const std::exception& error) {
    std::cerr << "bench cuda: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
