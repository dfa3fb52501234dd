// What does a policy cost beside attention? Caches at their budget, one token a step: the whole step against
// attention alone over the same entries. The difference is everything else: the new entry, the score, the
// search for who leaves, the merge.
#include <iostream>

#include "step_overhead/steps.hpp"
#include "support/command_line.hpp"
#include "support/machine.hpp"

namespace bench {
namespace {

struct Options : CommonOptions {
  std::vector<std::size_t> budgets = {205, 410, 1638};
  std::vector<std::string> policies = {"zeromerge",
                                       "zeromerge:merge=drop",
                                       "zeromerge:residual=10%",
                                       "zeromerge:importance=mean",
                                       "zeromerge:reference=1",
                                       "zeromerge:storage=bf16",
                                       "zeromerge:storage=q8",
                                       "zeromerge:storage=q4",
                                       "best"};
  std::vector<std::string> states = {"warm", "cold"};
};

std::string stored_type(const std::string& policy) {
  return zeromerge::detail::with_named_policy(
      policy, [](const auto& chosen) { return std::string(zeromerge::storage_name(chosen.key_type)); });
}

// All policies at one budget.
void measure_group(const Shape& shape, std::size_t budget, bool warm, std::size_t threads,
                   const Options& options, Report& report) {
  std::vector<std::unique_ptr<Steps>> steps;
  std::vector<TimedStep> contenders;
  for (const std::string& policy : options.policies) {
    steps.push_back(std::make_unique<Steps>(shape, policy, budget, warm, threads));
    contenders.push_back({policy, [s = steps.back().get()] { s->pair(); }});
  }
  (void)measure(contenders, options.effort);
  for (std::size_t i = 0; i < options.policies.size(); ++i) {
    const auto [step, attention] = steps[i]->medians();
    report.add({{"query_heads", shape.query_heads},
                {"kv_heads", shape.kv_heads},
                {"head_dim", shape.head_dim},
                {"policy", options.policies[i]},
                {"budget", budget},
                {"type", stored_type(options.policies[i])},
                {"threads", threads},
                {"warm", warm},
                {"step_us", step * 1e6},
                {"attention_us", attention * 1e6},
                {"overhead_us", (step - attention) * 1e6},
                {"overhead_share", (step - attention) / attention}});
  }
}

Report new_report() {
  Report report("step_overhead", {{"query_heads", "q heads"},
                                  {"kv_heads", "kv"},
                                  {"head_dim", "dim"},
                                  {"policy", "policy"},
                                  {"budget", "budget"},
                                  {"type", "type"},
                                  {"threads", "threads"},
                                  {"warm", "warm"},
                                  {"step_us", "step us", "%.1f"},
                                  {"attention_us", "attention us", "%.1f"},
                                  {"overhead_us", "rest us", "%.1f"},
                                  {"overhead_share", "rest / attention", "%.2f"}});
  report.note(
      "rest: taking the new entry, score, eviction and merge: the step less attention alone over the same "
      "entries");
  return report;
}

void run(const Options& options) {
  Report report = new_report();
  report.machine() = describe_machine();
  for (const Shape& shape : chosen(kShapes, options))
    for (const std::size_t budget : options.budgets) {
      for (const std::string& state : options.states)
        for (const std::size_t threads : options.threads) {
          std::cerr << shape.text() << ", " << budget << " entries, " << state << ", " << threads
                    << " thread(s)\n";
          measure_group(shape, budget, state == "warm", threads, options, report);
        }
      report.write(options.json);  // a long run that is stopped leaves what it has
    }
  report.print(std::cout);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  CLI::App app("What a policy costs in a decode step beside attention");
  bench::Options options;
  options.shapes = {"9/3x64", "32/8x128"};
  bench::add_common(app, options, bench::kShapes);
  app.add_option("--budget", options.budgets, "entries per head")
      ->check(CLI::Range(40, 1 << 20))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--policy", options.policies, "specs without a budget; may be given several times")
      ->capture_default_str();
  app.add_option("--state", options.states, "warm, cold")
      ->check(CLI::IsMember({"warm", "cold"}))
      ->delimiter(',')
      ->capture_default_str();
  return bench::run_program(app, argc, argv, [&] { bench::run(options); });
}
