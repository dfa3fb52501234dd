// Times contenders by Google Benchmark: every repetition of all of them in random order, so that a machine
// that drifts does not favour one.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace bench {

struct TimedStep {
  std::string name;
  std::function<void()> step;
};

struct Timing {
  double seconds;  // of one step, the median over repetitions
  double least;
  double most;
};

struct Effort {
  int repetitions = 5;
  double seconds = 0.05;  // of one repetition of one contender, at least
  double most = 5.0;      // of all repetitions of one contender, about: a step of seconds is repeated thrice
};

// In the order of the contenders; each has run a step before. Throws std::runtime_error if a step throws.
std::vector<Timing> measure(const std::vector<TimedStep>& contenders, const Effort& effort);

}  // namespace bench
