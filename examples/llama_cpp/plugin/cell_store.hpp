// The cells of one KV cache of the engine: all layers of it, all streams. Reads rows for the caches, gives
// back the pages of those that the caches hold, and knows which ones these are.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "cells.hpp"
#include "layers.hpp"

namespace zeromerge::plugin {

class CellStore {
 public:
  explicit CellStore(std::vector<ModelLayer> layers);

  const std::vector<ModelLayer>& layers() const noexcept { return layers_; }
  std::size_t streams() const noexcept { return streams_; }
  std::size_t cells() const noexcept { return cells_; }  // of a stream
  // The layer whose keys this tensor holds; layers().size(): none.
  std::size_t layer_of_keys(const ggml_tensor* k_root) const;
  std::size_t layer_of_data(const void* k_data) const;  // likewise, by where they lie

  // Rows of the keys or values of these cells; they lie in the cells or in `buffer`.
  RowView keys(std::size_t layer, std::size_t stream, const std::size_t* cells, std::size_t count,
               std::vector<char>& buffer) const;
  RowView values(std::size_t layer, std::size_t stream, const std::size_t* cells, std::size_t count,
                 std::vector<char>& buffer) const;

  // The engine writes to this cell in all layers.
  void wrote(std::size_t stream, std::size_t cell);
  // Gives back pages that lie under these cells (in any order) and hold only cells that are `consumed`.
  void give_back(std::size_t stream, std::vector<std::size_t> cells,
                 const std::function<bool(std::size_t cell)>& consumed);
  void give_back_untouched() const;

  // [cells] of a layer's stream; not 0: its page has been given back.
  const std::vector<char>& gone(std::size_t layer, std::size_t stream) const {
    return gone_[layer * streams_ + stream];
  }
  // How many of these cells have no content: given back, and not filled again by the engine; `all`: also
  // those that hold zeros without having been given back, as a state brings them that was saved after its
  // cells were.
  std::size_t missing(std::size_t layer, std::size_t stream, const std::size_t* cells, std::size_t count,
                      bool all) const;
  // The engine has filled these cells by other means than a graph, if they were given back.
  void take_filled(std::size_t layer, std::size_t stream, const std::size_t* cells, std::size_t count);
  // What is blank of these cells counts as given back.
  void take_blank(std::size_t stream, const std::vector<std::size_t>& cells);
  // Whether the engine has filled a cell that was given back, or wiped one that was not.
  bool refilled(std::size_t layer, std::size_t stream, std::size_t cell) const;
  bool wiped(std::size_t layer, std::size_t stream, std::size_t cell) const;

  std::size_t resident_bytes() const;

 private:
  std::vector<char>& gone_of(std::size_t layer, std::size_t stream) {
    return gone_[layer * streams_ + stream];
  }

  std::vector<ModelLayer> layers_;
  std::size_t streams_;
  std::size_t cells_;
  std::vector<CellPages> k_pages_;       // [layers][streams]
  std::vector<CellPages> v_pages_;       // [layers][streams]
  std::vector<std::vector<char>> gone_;  // [layers][streams][cells]
};

}  // namespace zeromerge::plugin
