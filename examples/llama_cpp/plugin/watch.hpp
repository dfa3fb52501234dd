// Notices what the engine does to its cells outside of the graphs' writes: a restored state, a shifted
// context. It shows in the bytes of the keys only. One layer is watched, the deepest: its key of a token
// depends on all tokens before it and on their positions, so a past that differs anywhere differs there from
// then on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cells.hpp"

namespace zeromerge::plugin {

class Watch {
 public:
  enum class Past { same, grown, edited };  // grown: by cells that no graph wrote

  // A graph has written this row (over all streams) of a layer's keys. The deepest layer seen so far is
  // watched, of those with the most cells.
  void wrote(const ggml_tensor* k_root, std::size_t row);
  bool watches(const ggml_tensor* k_root) const { return k_root->data == data_; }
  const void* data() const { return data_; }
  // The first bytes of a cell's key, as they were last known and as they are; 0: not known, or zeros.
  std::uint64_t known(std::size_t stream, std::size_t cell) const {
    const std::uint64_t key = known_.empty() ? 0 : known_[stream * cells_ + cell];
    return key == 1 ? 0 : key;
  }
  std::uint64_t present(std::size_t stream, std::size_t cell) const {
    const std::uint64_t key = now(stream * cells_ + cell);
    return key == 1 ? 0 : key;
  }
  // Whether a graph has written the cell, or it has been accepted.
  bool knows(std::size_t stream, std::size_t cell) const { return known_[stream * cells_ + cell] != 0; }

  // Compares these cells of a stream, except those that are `gone` ([cells] of the stream), with what was
  // last known of them.
  Past look(std::size_t stream, const std::vector<std::size_t>& cells, const std::vector<char>& gone) const;
  // Takes what they hold for known.
  void accept(std::size_t stream, const std::vector<std::size_t>& cells, const std::vector<char>& gone);

 private:
  const char* key(std::size_t row) const { return static_cast<const char*>(data_) + row * row_bytes_; }
  std::uint64_t now(std::size_t row) const;

  const void* data_ = nullptr;
  std::size_t row_bytes_ = 0;
  std::size_t cells_ = 0;  // per stream
  int layer_ = -1;
  std::vector<std::uint64_t> known_;  // [streams][cells] the first bytes of a cell's key, 0: unknown
};

}  // namespace zeromerge::plugin
