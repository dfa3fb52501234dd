// Layers of a cache at its budget: every step takes a token and parts with one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "support/shapes.hpp"
#include "zeromerge/cache/presets.hpp"

namespace bench {

class Steps {
 public:
  // `policy` without a budget. Warm: one layer; cold: as many in rotation as no near cache holds.
  Steps(const Shape& shape, const std::string& policy, std::size_t budget, bool warm, std::size_t threads);

  // One whole step and one of attention alone, each timed. In turns, so that a machine that drifts favours
  // neither.
  void pair();

  // In seconds, over all pairs so far.
  struct Medians {
    double step, attention;
  };
  Medians medians() const;

 private:
  // The whole step of a token whose queries, keys and values nothing has seen yet.
  void decode();
  // Attention alone over the same entries.
  void attend();
  // Makes `layers` of them, full and in the state that they keep; returns the bytes of one.
  std::size_t make(const std::string& spec, std::size_t budget, std::size_t layers, std::size_t threads);
  const float* fresh(std::size_t heads);
  zeromerge::AnyLayer& next();
  zeromerge::OutView out();

  Shape shape_;
  std::unique_ptr<zeromerge::AnyCache> cache_;
  std::vector<float> numbers_;
  std::vector<float> out_;
  std::size_t at_ = 0;
  std::size_t layer_ = 0;
  std::vector<float> step_seconds_;
  std::vector<float> attention_seconds_;
};

}  // namespace bench
