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

Watch::Past Watch::look(std::size_t stream, const std::vector<std::size_t>& cells) const {
  Past past = Past::same;
  for (const std::size_t cell : cells) {
    const std::uint64_t known = known_[stream * cells_ + cell];
    if (known == 0)
      past = Past::grown;
    else if (known != now(stream * cells_ + cell))
      return Past::edited;
  }
  return past;
}

void Watch::accept(std::size_t stream, const std::vector<std::size_t>& cells) {
  for (const std::size_t cell : cells) known_[stream * cells_ + cell] = now(stream * cells_ + cell);
}

std::uint64_t Watch::now(std::size_t row) const {
  std::uint64_t x = 0;
  std::memcpy(&x, static_cast<const char*>(data_) + row * row_bytes_, std::min(sizeof x, row_bytes_));
  return std::max<std::uint64_t>(x, 1);
}

}  // namespace zeromerge::plugin
