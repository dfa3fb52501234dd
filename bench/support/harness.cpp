#include "support/harness.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "support/report.hpp"

namespace bench {
namespace {

// Takes each repetition's time and prints nothing.
class Collector : public benchmark::BenchmarkReporter {
 public:
  explicit Collector(std::size_t contenders) : seconds_(contenders) {}
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration) continue;
      const auto number = static_cast<std::size_t>(std::stoul(run.run_name.function_name));
      seconds_[number].push_back(run.real_accumulated_time / static_cast<double>(run.iterations));
    }
  }
  Timing timing(std::size_t contender) const {
    const auto& s = seconds_[contender];
    if (s.empty()) throw std::runtime_error("a contender was not timed");
    return {median(s), *std::min_element(s.begin(), s.end()), *std::max_element(s.begin(), s.end())};
  }

 private:
  std::vector<std::vector<double>> seconds_;
};

void initialise() {
  static const bool done = [] {
    char name[] = "bench", interleaved[] = "--benchmark_enable_random_interleaving=true";
    char* arguments[] = {name, interleaved, nullptr};
    int count = 2;
    benchmark::Initialize(&count, arguments);
    return true;
  }();
  (void)done;
}

// Runs the first step, which nobody times, and says how often the contender is to be repeated.
int first_step(const TimedStep& contender, const Effort& effort) {
  const auto start = std::chrono::steady_clock::now();
  contender.step();
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  const double fits = effort.most / std::max(spent.count(), effort.seconds);
  return std::min(effort.repetitions, static_cast<int>(std::max(fits, 3.0)));
}

}  // namespace

std::vector<Timing> measure(const std::vector<TimedStep>& contenders, const Effort& effort) {
  initialise();
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    const int repetitions = first_step(contenders[i], effort);
    benchmark::RegisterBenchmark(std::to_string(i).c_str(),
                                 [&step = contenders[i].step](benchmark::State& state) {
                                   for (auto _ : state) step();
                                 })
        ->Repetitions(repetitions)
        ->MinTime(effort.seconds)
        ->UseRealTime();
  }
  Collector collector(contenders.size());
  benchmark::RunSpecifiedBenchmarks(&collector);
  benchmark::ClearRegisteredBenchmarks();
  std::vector<Timing> timings;
  for (std::size_t i = 0; i < contenders.size(); ++i) timings.push_back(collector.timing(i));
  return timings;
}

}  // namespace bench
