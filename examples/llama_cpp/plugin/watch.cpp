#include "watch.hpp"

#include <algorithm>
#include <cstring>

namespace zeromerge::plugin {

void Watch::wrote(const ggml_tensor* k_root, std::size_t row) {
  if (!watches(k_root)) {
    const auto cells = static_cast<std::size_t>(k_root->ne[1]);
    const int layer = layer_of(k_root);
    if (cells < cells_ || (cells == cells_ && layer <= layer_)) return;
    data_ = k_root->data;
    row_bytes_ = k_root->nb[1];
    cells_ = cells;
    layer_ = layer;
    known_.assign(cells * static_cast<std::size_t>(k_root->ne[2]), 0);
  }
  known_[row] = now(row);
}

// Each cell is a cache line of its own, far from the next: unless asked for early, each is waited for.
Watch::Past Watch::look(std::size_t stream, const std::vector<std::size_t>& cells,
                        const std::vector<char>& gone) const {
  constexpr std::size_t kAhead = 24;
  const std::size_t first = stream * cells_;
  Past past = Past::same;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (i + kAhead < cells.size()) __builtin_prefetch(key(first + cells[i + kAhead]));
    if (gone[cells[i]] != 0) continue;
    const std::uint64_t known = known_[first + cells[i]];
    if (known == 0)
      past = Past::grown;
    else if (known != now(first + cells[i]))
      return Past::edited;
  }
  return past;
}

void Watch::accept(std::size_t stream, const std::vector<std::size_t>& cells, const std::vector<char>& gone) {
  for (const std::size_t cell : cells)
    if (gone[cell] == 0) known_[stream * cells_ + cell] = now(stream * cells_ + cell);
}

std::uint64_t Watch::now(std::size_t row) const {
  std::uint64_t x = 0;
  std::memcpy(&x, key(row), std::min(sizeof x, row_bytes_));
  return std::max<std::uint64_t>(x, 1);
}

}  // namespace zeromerge::plugin
