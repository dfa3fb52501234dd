#include "cells.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace zeromerge::plugin {

const ggml_tensor* root_of(const ggml_tensor* tensor) {
  while (tensor->view_src != nullptr) tensor = tensor->view_src;
  return tensor;
}

// The whole name: a converted copy of a cache tensor ("cache_k_l7 (view) (copy)") is none.
bool is_cache(const ggml_tensor* root, char side) {
  const char prefix[] = {'c', 'a', 'c', 'h', 'e', '_', side, '_', 'l', '\0'};
  const std::size_t length = sizeof prefix - 1;
  if (std::strncmp(root->name, prefix, length) != 0 || root->name[length] == '\0') return false;
  return std::strspn(root->name + length, "0123456789") == std::strlen(root->name + length);
}

int layer_of(const ggml_tensor* root) {
  const char* number = std::strstr(root->name, "_l");
  return number != nullptr ? std::atoi(number + 2) : -1;
}

bool element_of_type(ggml_type type, Element& element) {
  switch (type) {
    case GGML_TYPE_F32:
      element = Element::f32;
      return true;
    case GGML_TYPE_F16:
      element = Element::f16;
      return true;
    case GGML_TYPE_BF16:
      element = Element::bf16;
      return true;
    default:
      return false;
  }
}

RowView operand_rows(const ggml_tensor* t, std::size_t stream, std::size_t first, std::size_t count) {
  RowView view;
  view.data = static_cast<const char*>(t->data) + stream * t->nb[3] + first * t->nb[1];
  (void)element_of_type(t->type, view.type);
  view.tokens = count;
  view.heads = static_cast<std::size_t>(t->ne[2]);
  view.head_dim = static_cast<std::size_t>(t->ne[0]);
  view.token_stride = static_cast<std::ptrdiff_t>(t->nb[1]);
  view.head_stride = static_cast<std::ptrdiff_t>(t->nb[2]);
  return view;
}

RowView cell_rows(const ggml_tensor* root, std::size_t heads, std::size_t stream, const std::size_t* cells,
                  std::size_t count, std::vector<char>& buffer) {
  RowView view;
  (void)element_of_type(root->type, view.type);
  view.tokens = count;
  view.heads = heads;
  view.head_dim = static_cast<std::size_t>(root->ne[0]) / heads;
  view.token_stride = static_cast<std::ptrdiff_t>(root->nb[1]);
  view.head_stride = static_cast<std::ptrdiff_t>(view.head_dim * element_size(view.type));
  const char* data = static_cast<const char*>(root->data) + stream * root->nb[2];
  view.data = data + (count != 0 ? cells[0] * root->nb[1] : 0);
  const bool in_place = std::adjacent_find(cells, cells + count, [](std::size_t a, std::size_t b) {
                          return b != a + 1;
                        }) == cells + count;
  if (in_place) return view;
  const std::size_t row = view.head_dim * heads * element_size(view.type);
  buffer.resize(count * row);
  for (std::size_t i = 0; i < count; ++i)
    std::memcpy(buffer.data() + i * row, data + cells[i] * root->nb[1], row);
  view.data = buffer.data();
  view.token_stride = static_cast<std::ptrdiff_t>(row);
  return view;
}

std::size_t page_bytes() {
  static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

CellPages::CellPages(const ggml_tensor* root, std::size_t stream)
    : data_(reinterpret_cast<std::uintptr_t>(root->data) + stream * root->nb[2]),
      row_(root->nb[1]),
      cells_(static_cast<std::size_t>(root->ne[1])) {}

void CellPages::release(std::uintptr_t page, std::uintptr_t bytes) {
  if (bytes != 0) madvise(reinterpret_cast<void*>(page), bytes, MADV_DONTNEED);
}

void CellPages::give_back_untouched() const {
  const std::uintptr_t size = page_bytes();
  const std::vector<char> zeros(size, 0);
  for (std::uintptr_t page = (data_ + size - 1) / size * size; page + size <= data_ + cells_ * row_;
       page += size)
    if (std::memcmp(reinterpret_cast<const void*>(page), zeros.data(), size) == 0) release(page, size);
}

bool CellPages::blank(std::size_t cell, bool in_part) const {
  const std::uintptr_t size = page_bytes();
  const std::uintptr_t end = data_ + (cell + 1) * row_;
  for (std::uintptr_t at = end - row_; at < end;) {
    const std::uintptr_t to = std::min(end, (at / size + 1) * size);
    const bool zeros = std::all_of(reinterpret_cast<const char*>(at), reinterpret_cast<const char*>(to),
                                   [](char c) { return c == 0; });
    if (zeros == in_part) return in_part;
    at = to;
  }
  return !in_part;
}

std::size_t CellPages::resident_bytes() const {
  const std::uintptr_t size = page_bytes();
  const std::uintptr_t first = data_ / size * size;
  const std::uintptr_t last = (data_ + cells_ * row_ + size - 1) / size * size;
  std::vector<unsigned char> in_core((last - first) / size);
  if (mincore(reinterpret_cast<void*>(first), last - first, in_core.data()) != 0) return cells_ * row_;
  return static_cast<std::size_t>(
             std::count_if(in_core.begin(), in_core.end(), [](unsigned char c) { return c & 1; })) *
         size;
}

}  // namespace zeromerge::plugin
