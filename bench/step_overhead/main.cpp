// What does a policy cost beside attention? Caches at their budget, one token a step: the whole step against
// attention alone over the same entries. The difference is everything else: the new entry, the score, the
// search for who leaves, the merge.
#include <CLI/CLI.hpp>
#include <iostream>
#include <map>

#include "support/calibrate.hpp"
#include "support/harness.hpp"
#include "support/pool.hpp"
#include "support/shapes.hpp"
#include "zeromerge/cache/presets.hpp"

namespace bench {
namespace {

struct Options {
  std::vector<std::string> shapes = {"9/3x64"};
  std::vector<std::size_t> budgets = {205, 410, 1638};
  std::vector<std::string> policies = {"zeromerge",
                                       "zeromerge:merge=drop",
                                       "zeromerge:residual=10%",
                                       "zeromerge:importance=mean",
                                       "zeromerge:reference=1",
                                       "zeromerge:storage=q8",
                                       "zeromerge:storage=q4"};
  std::vector<std::string> states = {"warm", "cold"};
  std::size_t threads = 1;
  Effort effort;
  std::string json;
};

std::string with_budget(const std::string& policy, std::size_t budget) {
  return policy + (policy.find(':') == std::string::npos ? ":" : ",") + "budget=" + std::to_string(budget);
}

// Layers of a cache at its budget, stepped in rotation.
class Steps {
 public:
  Steps(const Shape& shape, const std::string& spec, std::size_t budget, bool warm, std::size_t threads)
      : shape_(shape), out_(shape.query_heads * shape.head_dim) {
    zeromerge::Geometry g;
    g.query_heads = shape.query_heads;
    g.kv_heads = shape.kv_heads;
    g.head_dim = shape.head_dim;
    g.layers = 1;
    const std::size_t bytes = make(g, spec, budget, threads);
    if (warm) return;
    g.layers = cold_layers(bytes);
    make(g, spec, budget, threads);
  }

  // A token whose queries, keys and values nothing has seen yet.
  void decode() {
    const float* q = fresh(shape_.query_heads);
    const float* k = fresh(shape_.kv_heads);
    const float* v = fresh(shape_.kv_heads);
    cache_->layer(next()).decode(zeromerge::rows(q, 1, shape_.query_heads, shape_.head_dim),
                                 zeromerge::rows(k, 1, shape_.kv_heads, shape_.head_dim),
                                 zeromerge::rows(v, 1, shape_.kv_heads, shape_.head_dim), out());
  }
  void attend() {
    const float* q = fresh(shape_.query_heads);
    cache_->layer(next()).attend(zeromerge::rows(q, 1, shape_.query_heads, shape_.head_dim), out());
  }

 private:
  // Returns the bytes of a layer.
  std::size_t make(const zeromerge::Geometry& g, const std::string& spec, std::size_t budget,
                   std::size_t threads) {
    const std::size_t tokens = budget + budget / 4;
    const std::vector<float> k = random_numbers(tokens * g.kv_heads * g.head_dim, 2);
    const std::vector<float> v = random_numbers(tokens * g.kv_heads * g.head_dim, 3);
    numbers_ = random_numbers(kNumbers + g.query_heads * g.head_dim, 4);
    cache_ = zeromerge::make_cache(spec, g, {.executor = executor_of(threads)});
    for (std::size_t l = 0; l < g.layers; ++l) {
      cache_->layer(l).extend(zeromerge::rows(k.data(), tokens, g.kv_heads, g.head_dim),
                              zeromerge::rows(v.data(), tokens, g.kv_heads, g.head_dim));
      cache_->layer(l).finish_prompt();
    }
    for (std::size_t i = 0; i < 40 * g.layers; ++i)
      decode();  // a full turn of what fills up only while decoding
    return cache_->layer(0).bytes();
  }

  const float* fresh(std::size_t heads) {
    const float* at = numbers_.data() + at_;
    at_ = (at_ + heads * shape_.head_dim) % kNumbers;
    return at;
  }
  std::size_t next() { return layer_ = (layer_ + 1) % cache_->geometry().layers; }
  zeromerge::OutView out() {
    return zeromerge::out_rows(out_.data(), 1, shape_.query_heads, shape_.head_dim);
  }

  static constexpr std::size_t kNumbers = 1 << 16;
  Shape shape_;
  std::unique_ptr<zeromerge::AnyCache> cache_;
  std::vector<float> numbers_;
  std::vector<float> out_;
  std::size_t at_ = 0;
  std::size_t layer_ = 0;
};

void measure_group(const Shape& shape, std::size_t budget, bool warm, const Options& options,
                   Report& report) {
  std::vector<std::unique_ptr<Steps>> steps;
  std::vector<Contender> contenders;
  for (const std::string& policy : options.policies) {
    steps.push_back(
        std::make_unique<Steps>(shape, with_budget(policy, budget), budget, warm, options.threads));
    contenders.push_back({policy, [s = steps.back().get()] { s->decode(); }});
    contenders.push_back({policy + " attention", [s = steps.back().get()] { s->attend(); }});
  }
  const auto times = measure(contenders, options.effort);
  for (std::size_t i = 0; i < options.policies.size(); ++i) {
    const double step = times[2 * i].seconds;
    const double attention = times[2 * i + 1].seconds;
    report.add({{"query_heads", shape.query_heads},
                {"kv_heads", shape.kv_heads},
                {"head_dim", shape.head_dim},
                {"policy", options.policies[i]},
                {"budget", budget},
                {"threads", options.threads},
                {"warm", warm},
                {"step_us", step * 1e6},
                {"attention_us", attention * 1e6},
                {"overhead_us", (step - attention) * 1e6},
                {"overhead_share", (step - attention) / attention}});
  }
}

int run(const Options& options) {
  Report report("step_overhead", {{"query_heads", "q heads"},
                                  {"kv_heads", "kv"},
                                  {"head_dim", "dim"},
                                  {"policy", "policy"},
                                  {"budget", "budget"},
                                  {"warm", "warm"},
                                  {"step_us", "step us", "%.1f"},
                                  {"attention_us", "attention us", "%.1f"},
                                  {"overhead_us", "rest us", "%.1f"},
                                  {"overhead_share", "rest / attention", "%.2f"}});
  report.machine() = describe_machine();
  for (const Shape& shape : kShapes) {
    if (std::find(options.shapes.begin(), options.shapes.end(), shape.text()) == options.shapes.end())
      continue;
    for (const std::size_t budget : options.budgets)
      for (const std::string& state : options.states) {
        std::cerr << shape.text() << ", " << budget << " entries, " << state << '\n';
        measure_group(shape, budget, state == "warm", options, report);
      }
  }
  report.note(
      "rest: taking the new entry, score, eviction and merge: the step less attention alone over the same "
      "entries");
  report.print(std::cout);
  report.write(options.json);
  return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  CLI::App app("What a policy costs in a decode step beside attention");
  bench::Options options;
  std::vector<std::string> shapes;
  for (const bench::Shape& shape : bench::kShapes) shapes.push_back(shape.text());
  app.add_option("--shape", options.shapes, "query heads/kv heads x head_dim")->check(CLI::IsMember(shapes));
  app.add_option("--budget", options.budgets, "entries per head")
      ->check(CLI::Range(8, 1 << 20))
      ->delimiter(',');
  app.add_option("--policy", options.policies, "specs without a budget");
  app.add_option("--state", options.states, "warm, cold")
      ->check(CLI::IsMember({"warm", "cold"}))
      ->delimiter(',');
  app.add_option("--threads", options.threads, "1, 2 or 4")->check(CLI::IsMember({1, 2, 4}));
  app.add_option("--repetitions", options.effort.repetitions, "of each contender")
      ->check(CLI::Range(1, 1000));
  app.add_option("--seconds", options.effort.seconds, "of each repetition, at least")
      ->check(CLI::PositiveNumber);
  app.add_option("--json", options.json, "write the rows to this file");
  try {
    app.parse(argc, argv);
    return bench::run(options);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
