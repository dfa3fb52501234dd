// Groups of 32 entries in 4 bits (kernels/layout.hpp): x ~ minimum + scale * q, q in [0, 15], scale and
// minimum in f16. Keys share them by channel, so that a channel's outliers cost only itself; values by entry
// and 32 channels.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "zeromerge/core/geometry.hpp"
#include "zeromerge/kernels/layout.hpp"

namespace zeromerge::detail {

// The nearest whole number, halves to even, of |x| below 2^22: adding 1.5 * 2^23 leaves no room for a
// fraction.
inline int nearest(float x) noexcept {
  return static_cast<int>(std::bit_cast<std::int32_t>(x + 12582912.0f) - 0x4b400000);
}

// The grid for values in [low, high]: its ends are f16 and it covers what it can.
struct Grid4 {
  f16 scale;
  f16 minimum;

  Grid4(float low, float high) noexcept
      : scale(from_f32<f16>((high - to_f32(from_f32<f16>(low))) / 15.0f)), minimum(from_f32<f16>(low)) {}
  Grid4(f16 s, f16 m) noexcept : scale(s), minimum(m) {}

  int code(float x) const noexcept {
    const float s = to_f32(scale);
    return s > 0.0f ? std::clamp(nearest(std::min((x - to_f32(minimum)) / s, 16.0f)), 0, 15) : 0;
  }
  float value(int code) const noexcept { return to_f32(minimum) + to_f32(scale) * static_cast<float>(code); }
  // x is no further from the grid than half a step.
  bool covers(float x) const noexcept {
    const float half = 0.5f * to_f32(scale);
    return x >= value(0) - half && x <= value(15) + half;
  }
};

inline int get_nibble(const std::uint16_t* word, std::size_t number) noexcept {
  return *word >> 4 * number & 15;
}
inline void set_nibble(std::uint16_t* word, std::size_t number, int code) noexcept {
  const auto shift = 4 * number;
  *word = static_cast<std::uint16_t>((*word & ~(15u << shift)) | static_cast<unsigned>(code) << shift);
}

// A group of keys: bits [dims / 4][16 entries][2 channels], scale [dims], minimum [dims].
class KeyCodec4 {
 public:
  using View = kernels::KeyTiles<q4>;
  explicit KeyCodec4(std::size_t head_dim) noexcept
      : head_dim_(head_dim), dims_(kernels::round_up(head_dim, kernels::kTile)) {}

  std::size_t group_bytes() const noexcept { return View::group_bytes(dims_); }
  template <class Window>
  View view(const char* groups, std::size_t packed, const Window& window) const noexcept {
    // The window's channels are those of its own type; queries are 0 beyond them.
    return {reinterpret_cast<const unsigned char*>(groups), dims_, packed, window.view()};
  }

  void read(char* group, std::size_t entry, float* out) const noexcept {
    for (std::size_t d = 0; d < head_dim_; ++d) out[d] = grid(group, d).value(code(group, entry, d));
  }

  // All 32 entries at once: entry j is row first + j of `rows`.
  template <class Window>
  void write_group(char* group, const Window& rows, std::size_t first) const noexcept {
    std::fill_n(group, group_bytes(), char{0});
    float channel[kernels::kGroup];
    for (std::size_t d = 0; d < head_dim_; ++d) {
      for (std::size_t j = 0; j < kernels::kGroup; ++j) channel[j] = rows.at(first + j, d);
      write_channel(group, d, channel);
    }
  }

  // One entry of a group that stands: channels whose grid does not reach it are laid out anew.
  void write(char* group, std::size_t entry, const float* k) const noexcept {
    for (std::size_t d = 0; d < head_dim_; ++d) {
      const Grid4 now = grid(group, d);
      if (now.covers(k[d])) {
        set_nibble(word(group, entry, d), number(entry, d), now.code(k[d]));
        continue;
      }
      float channel[kernels::kGroup];
      for (std::size_t j = 0; j < kernels::kGroup; ++j) channel[j] = now.value(code(group, j, d));
      channel[entry] = k[d];
      write_channel(group, d, channel);
    }
  }

 private:
  void write_channel(char* group, std::size_t d, const float* x) const noexcept {
    const auto [low, high] = std::minmax_element(x, x + kernels::kGroup);
    const Grid4 g(*low, *high);
    scales(group)[d] = g.scale;
    scales(group)[dims_ + d] = g.minimum;
    for (std::size_t j = 0; j < kernels::kGroup; ++j)
      set_nibble(word(group, j, d), number(j, d), g.code(x[j]));
  }

  static std::size_t number(std::size_t entry, std::size_t d) noexcept {
    return d / 2 % 2 * 2 + entry / kernels::kTile;
  }
  static std::uint16_t* word(char* group, std::size_t entry, std::size_t d) noexcept {
    return reinterpret_cast<std::uint16_t*>(group) + d / 4 * 32 + entry % kernels::kTile * 2 + d % 2;
  }
  static int code(char* group, std::size_t entry, std::size_t d) noexcept {
    return get_nibble(word(group, entry, d), number(entry, d));
  }
  f16* scales(char* group) const noexcept {
    return reinterpret_cast<f16*>(group + dims_ * kernels::kGroup / 2);
  }
  Grid4 grid(char* group, std::size_t d) const noexcept {
    const f16* s = scales(group);
    return {s[d], s[dims_ + d]};
  }

  std::size_t head_dim_;
  std::size_t dims_;
};

// A group of values: two tiles of bits [2 octets][row_size][2 entries], then per 32 channels scale [16],
// minimum [16].
class ValueCodec4 {
 public:
  using View = kernels::ValueRows<q4>;
  explicit ValueCodec4(std::size_t head_dim) noexcept
      : head_dim_(head_dim), row_size_(kernels::round_up(head_dim, kernels::kTile)) {}

  std::size_t group_bytes() const noexcept { return 2 * View::tile_bytes(row_size_); }
  template <class Window>
  View view(const char* groups, std::size_t packed, const Window& window) const noexcept {
    return {reinterpret_cast<const unsigned char*>(groups), row_size_, packed, window.view()};
  }

  void read(char* group, std::size_t entry, float* out) const noexcept {
    char* tile = tile_of(group, entry);
    for (std::size_t d = 0; d < head_dim_; ++d) {
      const f16* s = scales(tile, d / kernels::kGroup) + entry % kernels::kTile;
      out[d] = Grid4(s[0], s[kernels::kTile]).value(get_nibble(word(tile, entry, d), entry % 8 / 2));
    }
  }

  void write(char* group, std::size_t entry, const float* v) const noexcept {
    char* tile = tile_of(group, entry);
    for (std::size_t first = 0; first < head_dim_; first += kernels::kGroup) {
      const std::size_t last = std::min(first + kernels::kGroup, head_dim_);
      const auto [low, high] = std::minmax_element(v + first, v + last);
      const Grid4 g(*low, *high);
      f16* s = scales(tile, first / kernels::kGroup) + entry % kernels::kTile;
      s[0] = g.scale;
      s[kernels::kTile] = g.minimum;
      for (std::size_t d = first; d < last; ++d)
        set_nibble(word(tile, entry, d), entry % 8 / 2, g.code(v[d]));
    }
  }

  template <class Window>
  void write_group(char* group, const Window& rows, std::size_t first) const noexcept {
    std::fill_n(group, group_bytes(), char{0});
    float row[kMaxHeadDim];
    for (std::size_t j = 0; j < kernels::kGroup; ++j) {
      rows.read(first + j, row);
      write(group, j, row);
    }
  }

 private:
  char* tile_of(char* group, std::size_t entry) const noexcept {
    return group + entry / kernels::kTile * View::tile_bytes(row_size_);
  }
  std::uint16_t* word(char* tile, std::size_t entry, std::size_t d) const noexcept {
    const std::size_t octet = entry % kernels::kTile / 8;
    return reinterpret_cast<std::uint16_t*>(tile) + (octet * row_size_ + d) * 2 + entry % 2;
  }
  f16* scales(char* tile, std::size_t s) const noexcept {
    return reinterpret_cast<f16*>(tile + row_size_ * kernels::kTile / 2) + s * 2 * kernels::kTile;
  }

  std::size_t head_dim_;
  std::size_t row_size_;
};

}  // namespace zeromerge::detail
