// Groups of 32 entries in 4 bits (kernels/layout.hpp): x ~ minimum + scale * code, code in [0, 15], scale and
// minimum in f16. Keys share them by channel, so that a channel's outliers cost only itself; values by entry
// and 64 channels.
#pragma once

#include <algorithm>
#include <cstddef>

#include "zeromerge/core/geometry.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge::detail {

inline unsigned char* bytes_of(char* p) noexcept { return reinterpret_cast<unsigned char*>(p); }

// A group of keys, one grid a channel.
class KeyCodec4 {
 public:
  using View = kernels::KeyTiles<q4>;
  explicit KeyCodec4(std::size_t head_dim) noexcept
      : head_dim_(head_dim), dims_(kernels::round_up(head_dim, kernels::kTile)) {}

  std::size_t group_bytes() const noexcept { return View::group_bytes(dims_); }
  template <class Tail>
  View view(const char* groups, std::size_t packed, const Tail& tail) const noexcept {
    // The tail's channels are those of its own type; queries are 0 beyond them.
    return {reinterpret_cast<const unsigned char*>(groups),
            dims_,
            packed,
            tail.settled(),
            tail.wide(),
            tail.narrow()};
  }

  void read(char* group, std::size_t entry, float* out) const noexcept {
    kernels::decode_q4_key(bytes_of(group), head_dim_, dims_, entry, out);
  }
  // All 32 entries at once: entry j is row first + j of `rows`.
  template <class Tail>
  void write_group(char* group, const Tail& rows, std::size_t first) const noexcept {
    float all[kernels::kGroup][kMaxHeadDim];
    for (std::size_t j = 0; j < kernels::kGroup; ++j) rows.read(first + j, all[j]);
    kernels::encode_q4_keys(all[0], kMaxHeadDim, head_dim_, dims_, bytes_of(group));
  }
  // One entry of a group that stands: channels whose grid does not reach it are laid out anew.
  void write(char* group, std::size_t entry, const float* k) const noexcept {
    kernels::encode_q4_key(k, head_dim_, dims_, entry, bytes_of(group));
  }

 private:
  std::size_t head_dim_;
  std::size_t dims_;
};

// A group of values, two tiles; one grid an entry and 64 channels.
class ValueCodec4 {
 public:
  using View = kernels::ValueRows<q4>;
  explicit ValueCodec4(std::size_t head_dim) noexcept
      : head_dim_(head_dim), row_size_(kernels::round_up(head_dim, kernels::kTile)) {}

  std::size_t group_bytes() const noexcept { return 2 * View::tile_bytes(row_size_); }
  template <class Tail>
  View view(const char* groups, std::size_t packed, const Tail& tail) const noexcept {
    return {reinterpret_cast<const unsigned char*>(groups),
            row_size_,
            packed,
            tail.settled(),
            tail.wide(),
            tail.narrow()};
  }

  void read(char* group, std::size_t entry, float* out) const noexcept {
    kernels::decode_q4_value(tile_of(group, entry), head_dim_, row_size_, entry % kernels::kTile, out);
  }
  void write(char* group, std::size_t entry, const float* v) const noexcept {
    kernels::encode_q4_value(v, head_dim_, row_size_, entry % kernels::kTile, tile_of(group, entry));
  }
  template <class Tail>
  void write_group(char* group, const Tail& rows, std::size_t first) const noexcept {
    std::fill_n(group, group_bytes(), char{0});
    float row[kMaxHeadDim];
    for (std::size_t j = 0; j < kernels::kGroup; ++j) {
      rows.read(first + j, row);
      write(group, j, row);
    }
  }

 private:
  unsigned char* tile_of(char* group, std::size_t entry) const noexcept {
    return bytes_of(group) + entry / kernels::kTile * View::tile_bytes(row_size_);
  }

  std::size_t head_dim_;
  std::size_t row_size_;
};

}  // namespace zeromerge::detail
