// Groups of 32 entries in 4 bits (kernels/layout.hpp): x ~ minimum + scale * code, code in [0, 15], scale and
// minimum in f16. Keys share them by channel, so that a channel's outliers cost only itself; values by entry
// and 64 channels.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

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

  // Does write(), which is of this entry, and leaves what takes it back: which channels are laid out anew,
  // the entry's codes, two a byte, and of those channels all 32 codes, scale and minimum.
  std::size_t image_bytes() const noexcept { return dims_ / 8 + dims_ / 2 + dims_ * kChannelBytes; }
  std::size_t usual_image_bytes() const noexcept { return dims_ / 8 + dims_ / 2 + 2 * kChannelBytes; }
  template <class Write>
  std::size_t record(char* group, std::size_t entry, char* to, const Write& write) const noexcept {
    unsigned char before[View::group_bytes(kMaxHeadDim)];
    std::memcpy(before, group, group_bytes());
    write();
    unsigned char* mask = bytes_of(to);
    unsigned char* codes = mask + dims_ / 8;
    unsigned char* channels = codes + dims_ / 2;
    std::fill(mask, channels, static_cast<unsigned char>(0));
    for (std::size_t d = 0; d < dims_; ++d) {
      const unsigned code = before[place(d, entry % kernels::kTile)] >> shift(entry) & 15u;
      codes[d / 2] = static_cast<unsigned char>(codes[d / 2] | code << d % 2 * 4);
      if (!laid_anew(before, bytes_of(group), d, entry)) continue;
      mask[d / 8] = static_cast<unsigned char>(mask[d / 8] | 1u << d % 8);
      for (std::size_t j = 0; j < kernels::kTile; ++j) channels[j] = before[place(d, j)];
      std::memcpy(channels + kernels::kTile, before + scale_at(d), 2);
      std::memcpy(channels + kernels::kTile + 2, before + scale_at(dims_ + d), 2);
      channels += kChannelBytes;
    }
    return static_cast<std::size_t>(channels - mask);
  }
  void restore(char* group, std::size_t entry, const char* from) const noexcept {
    const auto* mask = reinterpret_cast<const unsigned char*>(from);
    const unsigned char* codes = mask + dims_ / 8;
    const unsigned char* channels = codes + dims_ / 2;
    unsigned char* to = bytes_of(group);
    for (std::size_t d = 0; d < dims_; ++d) {
      if ((mask[d / 8] >> d % 8 & 1u) == 0) {
        unsigned char& byte = to[place(d, entry % kernels::kTile)];
        const unsigned code = codes[d / 2] >> d % 2 * 4 & 15u;
        byte = static_cast<unsigned char>((byte & ~(15u << shift(entry))) | code << shift(entry));
        continue;
      }
      for (std::size_t j = 0; j < kernels::kTile; ++j) to[place(d, j)] = channels[j];
      std::memcpy(to + scale_at(d), channels + kernels::kTile, 2);
      std::memcpy(to + scale_at(dims_ + d), channels + kernels::kTile + 2, 2);
      channels += kChannelBytes;
    }
  }

 private:
  static constexpr std::size_t kChannelBytes = kernels::kTile + 4;

  static unsigned shift(std::size_t entry) noexcept {
    return static_cast<unsigned>(entry / kernels::kTile * 4);
  }
  static std::size_t place(std::size_t channel, std::size_t j) noexcept {
    return channel / 4 * 64 + j * 4 + channel % 4;
  }
  std::size_t scale_at(std::size_t channel) const noexcept {
    return dims_ * kernels::kGroup / 2 + channel * 2;
  }
  // Whether more of a channel differs than the entry's code.
  bool laid_anew(const unsigned char* a, const unsigned char* b, std::size_t d,
                 std::size_t entry) const noexcept {
    unsigned other = 0;
    for (std::size_t j = 0; j < kernels::kTile; ++j) {
      const unsigned own = j == entry % kernels::kTile ? 15u << shift(entry) : 0u;
      other |= static_cast<unsigned>(a[place(d, j)] ^ b[place(d, j)]) & ~own;
    }
    return other != 0 || std::memcmp(a + scale_at(d), b + scale_at(d), 2) != 0 ||
           std::memcmp(a + scale_at(dims_ + d), b + scale_at(dims_ + d), 2) != 0;
  }

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

  // As of keys: the entry's codes, two a byte, and its scales and minima. No other entry changes.
  std::size_t image_bytes() const noexcept { return row_size_ / 2 + scale_groups() * 4; }
  std::size_t usual_image_bytes() const noexcept { return image_bytes(); }
  template <class Write>
  std::size_t record(char* group, std::size_t entry, char* to, const Write& write) const noexcept {
    const unsigned char* tile = tile_of(group, entry);
    unsigned char* codes = bytes_of(to);
    for (std::size_t d = 0; d < row_size_; d += 2)
      codes[d / 2] = static_cast<unsigned char>((tile[place(entry, d)] >> shift(entry) & 15u) |
                                                (tile[place(entry, d + 1)] >> shift(entry) & 15u) << 4);
    to += row_size_ / 2;
    for (std::size_t s = 0; s < scale_groups(); ++s, to += 4) {
      std::memcpy(to, tile + scale_at(entry, s), 2);
      std::memcpy(to + 2, tile + scale_at(entry, s) + 2 * kernels::kTile, 2);
    }
    write();
    return image_bytes();
  }
  void restore(char* group, std::size_t entry, const char* from) const noexcept {
    unsigned char* tile = tile_of(group, entry);
    for (std::size_t d = 0; d < row_size_; ++d) {
      unsigned char& byte = tile[place(entry, d)];
      const unsigned code = static_cast<unsigned char>(from[d / 2]) >> d % 2 * 4 & 15u;
      byte = static_cast<unsigned char>((byte & ~(15u << shift(entry))) | code << shift(entry));
    }
    from += row_size_ / 2;
    for (std::size_t s = 0; s < scale_groups(); ++s, from += 4) {
      std::memcpy(tile + scale_at(entry, s), from, 2);
      std::memcpy(tile + scale_at(entry, s) + 2 * kernels::kTile, from + 2, 2);
    }
  }

 private:
  std::size_t scale_groups() const noexcept { return View::scale_groups(row_size_); }
  static unsigned shift(std::size_t entry) noexcept { return static_cast<unsigned>(entry % 8 / 4 * 4); }
  std::size_t place(std::size_t entry, std::size_t d) const noexcept {
    return (entry % kernels::kTile / 8 * row_size_ + d) * 4 + entry % 4;
  }
  std::size_t scale_at(std::size_t entry, std::size_t s) const noexcept {
    return row_size_ * kernels::kTile / 2 + (s * 2 * kernels::kTile + entry % kernels::kTile) * 2;
  }
  unsigned char* tile_of(char* group, std::size_t entry) const noexcept {
    return bytes_of(group) + entry / kernels::kTile * View::tile_bytes(row_size_);
  }

  std::size_t head_dim_;
  std::size_t row_size_;
};

}  // namespace zeromerge::detail
