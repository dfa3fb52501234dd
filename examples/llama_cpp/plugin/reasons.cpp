#include "reasons.hpp"

#include "ggml-impl.h"

namespace zeromerge::plugin {

const ReasonText& text_of(Reason reason) {
  static constexpr ReasonText kTexts[] = {
      {"window",
       "layers with a sliding window are answered by llama.cpp itself; their cells are few already, unless "
       "swa_full (--swa-full) asks for all of them"},
      {"non_causal",
       "tokens that see what stands behind them (a picture, an embedding) are answered by llama.cpp itself; "
       "the text behind them is compressed again"},
      {"branches",
       "a batch in which tokens fork from each other (a tree of drafts) is answered by llama.cpp itself; "
       "draft "
       "one continuation at a time to have it answered from the cache"},
      {"mask_values",
       "a mask with distances in it is answered by llama.cpp itself; nothing is compressed there"},
      {"shared_cells",
       "layers that read another layer's cells are answered by llama.cpp itself; run this model without "
       "ZEROMERGE_RECLAIM"},
      {"shapes",
       "layers of different shape in one cache, or ones the plug-in has not seen built, are answered by "
       "llama.cpp itself; nothing is compressed there"},
  };
  return kTexts[static_cast<std::size_t>(reason)];
}

void Reasons::count(Reason reason) {
  const auto i = static_cast<std::size_t>(reason);
  ++counts_[i];
  if (!said_[i].exchange(true)) GGML_LOG_WARN("zeromerge: %s\n", text_of(reason).advice);
}

void Reasons::reset() {
  for (auto& count : counts_) count = 0;
}

}  // namespace zeromerge::plugin
