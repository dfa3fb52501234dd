#include "cell_store.hpp"

#include <algorithm>
#include <utility>

namespace zeromerge::plugin {

CellStore::CellStore(std::vector<ModelLayer> layers)
    : layers_(std::move(layers)),
      streams_(static_cast<std::size_t>(layers_.front().k->ne[2])),
      cells_(static_cast<std::size_t>(layers_.front().k->ne[1])) {
  for (const ModelLayer& layer : layers_)
    for (std::size_t s = 0; s < streams_; ++s) {
      k_pages_.emplace_back(layer.k, s);
      v_pages_.emplace_back(layer.v, s);
      gone_.emplace_back(cells_, 0);
    }
}

std::size_t CellStore::layer_of_keys(const ggml_tensor* k_root) const {
  const auto at = std::find_if(layers_.begin(), layers_.end(),
                               [k_root](const ModelLayer& layer) { return layer.k == k_root; });
  return static_cast<std::size_t>(at - layers_.begin());
}

std::size_t CellStore::layer_of_data(const void* k_data) const {
  const auto at = std::find_if(layers_.begin(), layers_.end(),
                               [k_data](const ModelLayer& layer) { return layer.k->data == k_data; });
  return static_cast<std::size_t>(at - layers_.begin());
}

RowView CellStore::keys(std::size_t layer, std::size_t stream, const std::size_t* cells, std::size_t count,
                        std::vector<char>& buffer) const {
  return cell_rows(layers_[layer].k, layers_[layer].shape.kv_heads, stream, cells, count, buffer);
}

RowView CellStore::values(std::size_t layer, std::size_t stream, const std::size_t* cells, std::size_t count,
                          std::vector<char>& buffer) const {
  return cell_rows(layers_[layer].v, layers_[layer].shape.kv_heads, stream, cells, count, buffer);
}

void CellStore::wrote(std::size_t stream, std::size_t cell) {
  for (std::size_t l = 0; l < layers_.size(); ++l) gone_of(l, stream)[cell] = 0;
}

void CellStore::give_back(std::size_t stream, std::vector<std::size_t> cells,
                          const std::function<bool(std::size_t cell)>& consumed) {
  std::sort(cells.begin(), cells.end());
  for (std::size_t i = 0; i < cells.size();) {
    std::size_t end = i + 1;
    while (end < cells.size() && cells[end] <= cells[end - 1] + 1) ++end;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      std::vector<char>& gone = gone_of(l, stream);
      const auto of_stream = [&](std::size_t cell) { return cell >= cells_ || consumed(cell); };
      const auto note = [&](std::size_t cell) {
        if (cell < cells_) gone[cell] = 1;
      };
      k_pages_[l * streams_ + stream].give_back(cells[i], cells[end - 1], of_stream, note);
      v_pages_[l * streams_ + stream].give_back(cells[i], cells[end - 1], of_stream, note);
    }
    i = end;
  }
}

void CellStore::give_back_untouched() const {
  for (const CellPages& pages : k_pages_) pages.give_back_untouched();
  for (const CellPages& pages : v_pages_) pages.give_back_untouched();
}

std::size_t CellStore::missing(std::size_t layer, std::size_t stream, const std::size_t* cells,
                               std::size_t count, bool all) const {
  const CellPages& k = k_pages_[layer * streams_ + stream];
  const CellPages& v = v_pages_[layer * streams_ + stream];
  const std::vector<char>& gone_here = gone(layer, stream);
  std::size_t missing = 0;
  for (std::size_t i = 0; i < count; ++i)
    missing += (gone_here[cells[i]] != 0 ? k.blank(cells[i], true) || v.blank(cells[i], true)
                                         : all && k.blank(cells[i], false))
                   ? 1
                   : 0;
  return missing;
}

void CellStore::take_filled(std::size_t layer, std::size_t stream, const std::size_t* cells,
                            std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) gone_of(layer, stream)[cells[i]] = 0;
}

void CellStore::take_blank(std::size_t stream, const std::vector<std::size_t>& cells) {
  for (std::size_t l = 0; l < layers_.size(); ++l)
    for (const std::size_t cell : cells)
      gone_of(l, stream)[cell] = k_pages_[l * streams_ + stream].blank(cell, true) ||
                                         v_pages_[l * streams_ + stream].blank(cell, true)
                                     ? 1
                                     : 0;
}

bool CellStore::refilled(std::size_t layer, std::size_t stream, std::size_t cell) const {
  return gone(layer, stream)[cell] != 0 && !k_pages_[layer * streams_ + stream].blank(cell, true);
}

bool CellStore::wiped(std::size_t layer, std::size_t stream, std::size_t cell) const {
  return gone(layer, stream)[cell] == 0 && k_pages_[layer * streams_ + stream].blank(cell, false);
}

std::size_t CellStore::resident_bytes() const {
  std::size_t bytes = 0;
  for (const CellPages& pages : k_pages_) bytes += pages.resident_bytes();
  for (const CellPages& pages : v_pages_) bytes += pages.resident_bytes();
  return bytes;
}

}  // namespace zeromerge::plugin
