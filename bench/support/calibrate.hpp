// What this machine can do, measured: the limits that shares refer to.
#pragma once

#include <cstddef>
#include <vector>

#include "support/memory.hpp"

namespace bench {

// f32 multiply-adds of one core on registers alone, at the instruction set that the kernels use, in FLOP/s.
double fma_peak();

// Multiply-adds on registers alone by this many threads at once: timed among the contenders of a group, it
// says what the machine could compute while they ran.
class Arithmetic {
 public:
  explicit Arithmetic(std::size_t threads) : threads_(threads) {}
  void step() const;
  double flops() const;  // of a step, all threads

 private:
  std::size_t threads_;
};

// The same where every vector is converted from f16 before `group` multiply-adds use it, from the nearest
// cache: what arithmetic on stored f16 can reach, since conversions take the same units. Without AVX-512: as
// Arithmetic.
class ConvertedArithmetic {
 public:
  ConvertedArithmetic(std::size_t group, std::size_t threads);
  void step() const;
  double flops() const;

 private:
  float (*run_)(std::size_t rounds);
  double round_flops_;
  std::size_t threads_;
};

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
