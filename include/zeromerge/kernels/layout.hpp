// How kernels see stored entries. Keys lie in tiles of 16 entries, so that a vector holds one channel of 16
// entries; values lie row by row, so that a vector holds 16 channels of one entry. `pack` neighbours of the
// other axis sit side by side, for the instructions that multiply pairs or quads:
//   keys    [entries / 16][channels / pack][16][pack]
//   values  [entries / pack][row_size][pack]
// What fills a tile or a pack behind the last entry is never NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "zeromerge/core/element.hpp"

namespace zeromerge::kernels {

inline constexpr std::size_t kTile = 16;  // entries of a key tile
inline constexpr std::size_t kGroup =
    32;  // entries that are stored together in q4; share a key channel's scale
inline constexpr std::size_t kChannels = 64;     // channels that share an entry's scale in values of q4
inline constexpr std::size_t kKeyBlock = 64;     // entries of a block in prefill
inline constexpr std::size_t kRowBlock = 192;    // query rows of a block in prefill, at most
inline constexpr std::size_t kSegment = 512;     // entries of a decode segment, constant for any threads
inline constexpr std::size_t kQueryTail = 16;    // floats behind a query row, see prepare()
inline constexpr std::uint8_t kZeroQ8 = 128;     // a stored byte that stands for 0
inline constexpr float kMasked = -3.0e38f;       // a logit whose exponential is exactly 0
inline constexpr float kLog2E = 1.44269504089f;  // logits are in units of log 2: exp(x) = 2^(x * kLog2E)
inline constexpr float kLn2 = 0.69314718056f;

constexpr std::size_t round_up(std::size_t n, std::size_t unit) noexcept {
  return (n + unit - 1) / unit * unit;
}

template <class T>
struct StoredType {
  using type = T;
  static constexpr std::size_t pack = 1;
};
template <>
struct StoredType<bf16> {
  using type = bf16;
  static constexpr std::size_t pack = 2;
};
template <>
struct StoredType<q8> {
  using type = std::uint8_t;  // q + 128
  static constexpr std::size_t pack = 4;
};
template <class T>
using stored = typename StoredType<T>::type;
template <class T>
inline constexpr std::size_t pack_of = StoredType<T>::pack;

// Keys of one head.
template <class T>
struct KeyTiles {
  const stored<T>* tiles;
  std::size_t dims;    // channels, head_dim rounded up to pack; the rest of a query row is 0
  const float* scale;  // q8: [entries padded to 16]; else null

  std::size_t tile_size() const noexcept { return dims * kTile; }
  const stored<T>* tile(std::size_t t) const noexcept { return tiles + t * tile_size(); }
};

// Values of one head.
template <class T>
struct ValueRows {
  const stored<T>* rows;
  std::size_t row_size;  // channels, head_dim rounded up to 16
  const float* scale;    // q8: [entries padded to 16]; else null

  const stored<T>* row(std::size_t j) const noexcept { return rows + j * row_size; }  // j: a multiple of pack
};

// 4-bit keys: groups of 32 entries; the entries behind the last whole group are f16 or 8 bits.
//   group  bytes [dims / 4][16 entries][4 channels]: entry j of 16 in the low four bits, entry 16 + j in the
//          high ones; then scale f16 [dims], minimum f16 [dims].
template <>
struct KeyTiles<q4> {
  const unsigned char* groups;
  std::size_t dims;    // a multiple of 4
  std::size_t packed;  // entries in groups, a multiple of 32
  bool settled;        // the entries behind them are in `narrow`, else in `wide`
  KeyTiles<f16> wide;
  KeyTiles<q8> narrow;

  static constexpr std::size_t group_bytes(std::size_t dims) noexcept { return dims * (kGroup / 2 + 4); }
  const unsigned char* group(std::size_t g) const noexcept { return groups + g * group_bytes(dims); }
  const f16* scales(const unsigned char* group) const noexcept {  // [dims], then the minima
    return reinterpret_cast<const f16*>(group + dims * kGroup / 2);
  }
};

// 4-bit values: tiles of 16 entries; the entries behind the last whole group of 32 are f16 or 8 bits.
//   tile  bytes [2 octets][row_size][4 entries]: entry e of the octet in the low four bits, entry 4 + e in
//         the high ones; then for every 64 channels scale f16 [16 entries], minimum f16 [16 entries].
template <>
struct ValueRows<q4> {
  const unsigned char* tiles;
  std::size_t row_size;
  std::size_t packed;  // entries in tiles, a multiple of 32
  bool settled;        // the entries behind them are in `narrow`, else in `wide`
  ValueRows<f16> wide;
  ValueRows<q8> narrow;

  static constexpr std::size_t scale_groups(std::size_t row_size) noexcept {
    return (row_size + kChannels - 1) / kChannels;
  }
  static constexpr std::size_t tile_bytes(std::size_t row_size) noexcept {
    return row_size * kTile / 2 + scale_groups(row_size) * kTile * 4;
  }
  const unsigned char* tile(std::size_t t) const noexcept { return tiles + t * tile_bytes(row_size); }
  const f16* scales(const unsigned char* tile,
                    std::size_t s) const noexcept {  // [16 entries], then the minima
    return reinterpret_cast<const f16*>(tile + row_size * kTile / 2) + s * 2 * kTile;
  }
};

// Where the entries from `first` (a multiple of kSegment) on lie, to ask for them early.
template <class T>
const void* address(const KeyTiles<T>& keys, std::size_t first) noexcept {
  if constexpr (std::is_same_v<T, q4>) {
    if (first < keys.packed) return keys.group(first / kGroup);
    return keys.settled ? address(keys.narrow, first - keys.packed) : address(keys.wide, first - keys.packed);
  } else {
    return keys.tile(first / kTile);
  }
}
template <class T>
const void* address(const ValueRows<T>& values, std::size_t first) noexcept {
  if constexpr (std::is_same_v<T, q4>) {
    if (first < values.packed) return values.tile(first / kTile);
    return values.settled ? address(values.narrow, first - values.packed)
                          : address(values.wide, first - values.packed);
  } else {
    return values.row(first);
  }
}

// The scales by which logits of the entries from `first` on are still to be multiplied, or null.
template <class T>
const float* row_scales(const KeyTiles<T>& keys, std::size_t first) noexcept {
  if constexpr (std::is_same_v<T, q8>) return keys.scale + first;
  return nullptr;
}

}  // namespace zeromerge::kernels
