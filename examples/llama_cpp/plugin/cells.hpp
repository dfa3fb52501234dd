// The engine's KV cells of one layer: two tensors [row][cells][streams] in host memory. Reading rows, and
// giving back the pages of rows that the caches hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ggml.h"
#include "zeromerge/core/rows.hpp"

namespace zeromerge::plugin {

// The tensor that a view (of a view ...) looks into.
const ggml_tensor* root_of(const ggml_tensor* tensor);
// A cache tensor by its name, "cache_k_l7" or "cache_v_l7"; `side` is 'k' or 'v'.
bool is_cache(const ggml_tensor* root, char side);
// The layer in its name, or -1.
int layer_of(const ggml_tensor* root);
// f32, f16 or bf16, as the library names it; false: another type.
bool element_of_type(ggml_type type, Element& element);

// Rows of an attention operand [dim][tokens][heads][streams]: tokens [first, first + count) of one stream.
RowView operand_rows(const ggml_tensor* operand, std::size_t stream, std::size_t first, std::size_t count);

// Rows of these cells of a cache tensor [row][cells][streams] of `heads` heads; in place where the cells
// follow one another, else copied to `buffer`.
RowView cell_rows(const ggml_tensor* root, std::size_t heads, std::size_t stream, const std::size_t* cells,
                  std::size_t count, std::vector<char>& buffer);

// Bytes of a page of memory, as the system says.
std::size_t page_bytes();

// The pages under the cells of one cache tensor and stream.
class CellPages {
 public:
  CellPages(const ggml_tensor* root, std::size_t stream);

  // Gives back whole pages that hold only zeros: what the engine cleared and never used.
  void give_back_untouched() const;
  // Gives back the whole pages whose last byte lies in rows [first, last], where `consumed(cell)` holds for
  // every cell on the page; calls gone(cell) for each of those.
  template <class Consumed, class Gone>
  void give_back(std::size_t first, std::size_t last, const Consumed& consumed, const Gone& gone) const;
  std::size_t resident_bytes() const;
  // Whether a row holds only zeros; in_part: whether its part on any one page does.
  bool blank(std::size_t cell, bool in_part) const;

 private:
  static void release(std::uintptr_t page, std::uintptr_t bytes);
  std::uintptr_t data_;  // of the stream
  std::size_t row_;      // bytes
  std::size_t cells_;
};

template <class Consumed, class Gone>
void CellPages::give_back(std::size_t first, std::size_t last, const Consumed& consumed,
                          const Gone& gone) const {
  const std::uintptr_t size = page_bytes();
  const std::uintptr_t end = data_ + (last + 1) * row_;
  std::uintptr_t page = (data_ + first * row_) / size * size;
  if (page < data_) page += size;
  std::uintptr_t run = page;  // pages [run, page) are to go
  for (; page + size <= end; page += size) {
    const std::size_t from = (page - data_) / row_;
    const std::size_t to = (page + size - 1 - data_) / row_;
    bool all = true;
    for (std::size_t cell = from; cell <= to; ++cell) all = all && consumed(cell);
    if (!all) {
      release(run, page - run);
      run = page + size;
      continue;
    }
    for (std::size_t cell = from; cell <= to; ++cell) gone(cell);
  }
  if (page > run) release(run, page - run);
}

}  // namespace zeromerge::plugin
