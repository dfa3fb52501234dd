#include "parked.hpp"

#include <algorithm>
#include <utility>

namespace zeromerge::plugin {

// The key of a token depends on all tokens before it. The newest one's is there, for its page is never given
// back: among the cells that are shown, or behind them if the engine has taken it back.
bool lies_in(const Imprint& imprint, const Shown& shown, std::vector<std::size_t>& order) {
  const std::size_t count = shown.cells.size();
  if (count == 0 || count > imprint.order.size()) return false;
  std::vector<std::size_t> rank(count);  // the tokens, by rising old cell
  for (std::size_t i = 0; i < count; ++i) rank[i] = i;
  std::sort(rank.begin(), rank.end(),
            [&](std::size_t a, std::size_t b) { return imprint.order[a] < imprint.order[b]; });
  order.resize(count);
  bool sure = false;
  for (std::size_t i = 0; i < count; ++i) {
    order[rank[i]] = shown.cells[i];
    const std::uint64_t was = imprint.keys[rank[i]], is = shown.keys[i];
    if (was != 0 && is != 0 && was != is) return false;
    sure = sure || (rank[i] + 1 == count && was != 0 && was == is);
  }
  const std::uint64_t newest = imprint.keys.back();
  return sure || (newest != 0 && count < imprint.order.size() &&
                  std::find(shown.behind.begin(), shown.behind.end(), newest) != shown.behind.end());
}

void Parked::park(std::unique_ptr<Sequence> sequence) {
  if (held_.size() == kMost) {
    const auto resumed =
        std::find_if(held_.begin(), held_.end(), [](const Held& held) { return held.resumed; });
    held_.erase(resumed != held_.end() ? resumed : held_.begin());
  }
  held_.push_back({std::move(sequence)});
}

const Sequence* Parked::find(const Shown& shown, std::vector<std::size_t>& order) {
  const std::size_t count = shown.cells.size();
  for (const bool longer : {false, true})
    for (auto held = held_.rbegin(); held != held_.rend(); ++held) {
      const Sequence& sequence = *held->sequence;
      const Imprint& imprint = *sequence.imprint();
      if ((imprint.order.size() != count) != longer || !sequence.can_go_back_to(count)) continue;
      if (!lies_in(imprint, shown, order)) continue;
      held->resumed = true;
      return &sequence;
    }
  return nullptr;
}

std::size_t Parked::bytes() const {
  std::size_t bytes = 0;
  for (const Held& held : held_) bytes += held.sequence->bytes();
  return bytes;
}

}  // namespace zeromerge::plugin
