#include "parked.hpp"

#include <algorithm>
#include <utility>

namespace zeromerge::plugin {

void Parked::park(std::unique_ptr<Sequence> sequence, std::vector<std::uint64_t> keys) {
  if (held_.size() == kMost) held_.erase(held_.begin());
  held_.push_back({std::move(sequence), std::move(keys)});
}

// The newest token's key is there, for its page is never given back; it depends on all tokens before it.
bool lies_in(const std::vector<std::size_t>& old, const std::vector<std::uint64_t>& known,
             const std::vector<std::size_t>& cells, const std::vector<std::uint64_t>& keys,
             std::vector<std::size_t>& order) {
  if (old.size() != cells.size()) return false;
  std::vector<std::size_t> rank(old.size());  // the tokens, by rising old cell
  for (std::size_t i = 0; i < rank.size(); ++i) rank[i] = i;
  std::sort(rank.begin(), rank.end(), [&](std::size_t a, std::size_t b) { return old[a] < old[b]; });
  order.resize(old.size());
  for (std::size_t i = 0; i < rank.size(); ++i) {
    order[rank[i]] = cells[i];
    const bool newest = rank[i] + 1 == rank.size();
    if (keys[i] != known[rank[i]] && (newest || (keys[i] != 0 && known[rank[i]] != 0))) return false;
  }
  return known.back() != 0;
}

const Sequence* Parked::find(const std::vector<std::size_t>& cells, const std::vector<std::uint64_t>& keys,
                             std::vector<std::size_t>& order) const {
  for (auto held = held_.rbegin(); held != held_.rend(); ++held)
    if (lies_in(held->sequence->chain.order(), held->keys, cells, keys, order)) return held->sequence.get();
  return nullptr;
}

std::size_t Parked::bytes() const {
  std::size_t bytes = 0;
  for (const Held& held : held_) bytes += held.sequence->cache()->bytes().held;
  return bytes;
}

}  // namespace zeromerge::plugin
