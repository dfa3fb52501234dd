// What the decode steps of all layers share: the parts of a step, logits, candidates to leave. Sized by
// bounds, so that a step allocates nothing; it grows between prompts and steps only.
#pragma once

#include <algorithm>
#include <cstddef>

#include "zeromerge/cuda/heads.hpp"

namespace zeromerge::cuda {

class DecodeScratch {
 public:
  DecodeScratch(const CacheParts& parts, std::size_t sequences)
      : parts_(parts), sequences_(sequences), multiprocessors_(limits().multiprocessors) {}

  // Room for heads of so many entries, the newest included. What was captured before it grew is no longer
  // valid.
  void reserve(std::size_t entries) {
    if (entries <= most_) return;
    most_ = static_cast<unsigned>(entries);
    std::size_t floats = 0;
    std::size_t logits = 0;
    std::size_t least = 0;
    for (std::size_t batch = 1; batch <= sequences_; ++batch) {
      const DecodePlan p = plan(batch);
      floats = std::max(floats, p.partial_floats());
      logits = std::max(logits, p.logit_floats());
      least = std::max(least, p.least_count());
    }
    floats_ = Buffer<float>(floats);
    if (parts_.policy.fields.score) {
      logits_ = Buffer<float>(logits);
      least_value_ = Buffer<float>(least);
      least_slot_ = Buffer<unsigned>(least);
    }
    ++version_;
  }

  DecodePlan plan(std::size_t batch) const {
    return plan_decode(multiprocessors_, batch * parts_.geometry.kv_heads, parts_.group(), parts_.head_dim(),
                       most_);
  }
  void lend(DecodeStep& step) const noexcept {
    step.floats = floats_.data();
    step.logits = logits_.data();
    step.least_value = least_value_.data();
    step.least_slot = least_slot_.data();
  }
  std::size_t version() const noexcept { return version_; }
  std::size_t bytes() const noexcept {
    return floats_.bytes() + logits_.bytes() + least_value_.bytes() + least_slot_.bytes();
  }

 private:
  const CacheParts& parts_;
  std::size_t sequences_;
  unsigned multiprocessors_;
  unsigned most_ = 0;
  std::size_t version_ = 0;
  Buffer<float> floats_, logits_, least_value_;
  Buffer<unsigned> least_slot_;
};

}  // namespace zeromerge::cuda
