// Why attention was answered by the engine's own kernel, from its own cells, and not from a cache: counted,
// and said once.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace zeromerge::plugin {

enum class Reason {
  window,        // a sliding window forgets its oldest tokens by itself
  non_causal,    // rows see what stands behind them: a picture, an embedding
  branches,      // rows of one batch fork from each other: a tree of drafts
  mask_values,   // the mask says more than what is seen
  shared_cells,  // several layers read the cells of one
  shapes,        // layers whose shape or whose writes the plug-in has not seen, or that differ in shape
  kReasons
};

struct ReasonText {
  const char* name;
  const char* advice;
};
const ReasonText& text_of(Reason reason);

class Reasons {
 public:
  // Counts a call, and says it on one line of the log the first time.
  void count(Reason reason);
  std::uint64_t counted(Reason reason) const { return counts_[static_cast<std::size_t>(reason)]; }
  void reset();

 private:
  static constexpr std::size_t kCount = static_cast<std::size_t>(Reason::kReasons);
  std::array<std::atomic<std::uint64_t>, kCount> counts_{};
  std::array<std::atomic<bool>, kCount> said_{};
};

}  // namespace zeromerge::plugin
