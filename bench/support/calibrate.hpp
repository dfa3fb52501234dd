// What this machine can do, measured: the limits that shares refer to.
#pragma once

#include <cstddef>
#include <vector>

#include "support/memory.hpp"
#include "support/report.hpp"

namespace bench {

// f32 multiply-adds of one core on registers alone, at the instruction set that the kernels use, in FLOP/s.
double fma_peak();

// The CPU's name, its cores, what the kernels use of it, and fma_peak().
Json describe_machine();

// Reads a working set of `parts` blocks of `bytes` in rotation, one block a call, and nothing else: the least
// time in which anything could.
class Reader {
 public:
  Reader(std::size_t bytes, std::size_t parts, std::size_t threads);
  void step();

 private:
  std::size_t bytes_;
  std::size_t threads_;
  std::vector<HugePages> parts_;
  std::size_t next_ = 0;
};

}  // namespace bench
