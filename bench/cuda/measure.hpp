// What the bench measures on a device; compiled by nvcc, while the program around it is not.
#pragma once

#include <cstddef>
#include <string>

#include "support/shapes.hpp"

namespace bench {

struct DeviceFacts {
  std::string name;
  std::string capability;
  std::size_t multiprocessors;
  std::size_t l2_bytes;
  double copy_gb_per_s;  // bytes read and written by a large copy on the device
};

struct StepProblem {
  Shape shape;
  std::string type;       // f16, bf16 or q8
  std::size_t entries;    // of each head, which is full
  std::size_t sequences;  // in a batch, all alike
};

struct StepTimes {
  double attention_us;  // of one layer, nothing changes
  double step_us;       // append, attend, score, evict
  double bytes;         // of keys and values (and scales) that either reads
};

// Empty where there is one.
std::string why_no_device();
DeviceFacts describe_device();
// Medians of so many replays of a captured graph that walks through more layers than the near cache holds.
StepTimes measure_step(const StepProblem& problem, std::size_t repetitions);

}  // namespace bench
