// The entries of one kv head, dense: keys as T in tiles of 16 (the layout of kernels/cpu/decode.inl), values
// row by row, and what a policy keeps beside them. Slots are storage places, never positions: each entry
// knows its original position. Heads are ragged: each owns just the bytes of its own entries.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "zeromerge/kernels/kernels.hpp"
#include "zeromerge/memory/block.hpp"

namespace zeromerge {

// Which arrays a policy needs beside keys and values; the cache pays only for these.
struct EntryFields {
  bool score = false;
  bool mass = false;  // and the bias that follows from it
};

template <class K, class V = K>
class Head {
 public:
  using Key = K;
  using Value = V;

  Head(std::size_t head_dim, EntryFields fields, ByteLedger* ledger)
      : head_dim_(head_dim),
        pairs_((head_dim + 1) / 2),
        row_size_(kernels::round_up(head_dim, 16)),
        fields_(fields),
        ledger_(ledger),
        keys_(ledger),
        values_(ledger),
        score_(ledger),
        mass_(ledger),
        bias_(ledger),
        position_(ledger) {}

  std::size_t size() const noexcept { return size_; }
  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t head_dim() const noexcept { return head_dim_; }
  std::size_t row_size() const noexcept {
    return row_size_;
  }  // elements of a stored value row, head_dim padded to 16
  std::size_t pairs() const noexcept { return pairs_; }
  EntryFields fields() const noexcept { return fields_; }
  std::size_t bytes() const noexcept {
    return keys_.bytes() + values_.bytes() + score_.bytes() + mass_.bytes() + bias_.bytes() +
           position_.bytes();
  }

  kernels::KeysOf<K> keys() const noexcept {
    return {key_data(), tile_size(), pairs_, fields_.mass ? bias() : nullptr};
  }
  const V* values() const noexcept { return reinterpret_cast<const V*>(values_.data()); }
  float* score() const noexcept { return reinterpret_cast<float*>(score_.data()); }  // [capacity] or null
  float* mass() const noexcept { return reinterpret_cast<float*>(mass_.data()); }    // [capacity] or null
  float* bias() const noexcept { return reinterpret_cast<float*>(bias_.data()); }    // [capacity] or null
  std::uint32_t* position() const noexcept { return reinterpret_cast<std::uint32_t*>(position_.data()); }

  // Room for at least `entries`; what is there stays. Throws std::bad_alloc with nothing changed that
  // matters.
  void reserve(std::size_t entries) {
    if (entries <= capacity_) return;
    resize_blocks(entries);
  }

  // Room for exactly `entries` (at least size()), padded to whole tiles.
  void fit(std::size_t entries) { resize_blocks(entries); }

  void clear() noexcept {
    size_ = capacity_ = 0;
    for (Block* block : {&keys_, &values_, &score_, &mass_, &bias_, &position_}) block->resize(0);
  }
  void truncate(std::size_t entries) noexcept { size_ = entries < size_ ? entries : size_; }

  // Adds one entry of mass 1, score 0 behind the last; room must have been reserved. k, v: [head_dim].
  void append(const float* k, const float* v, std::uint32_t position) noexcept {
    const std::size_t slot = size_++;
    write_key(slot, k);
    write_value(slot, v);
    position_at(slot) = position;
    if (fields_.score) score()[slot] = 0.0f;
    if (fields_.mass) {
      mass()[slot] = 1.0f;
      bias()[slot] = 0.0f;
    }
  }

  void read_key(std::size_t slot, float* out) const noexcept {
    const K* tile = key_data() + slot / kernels::kTile * tile_size();
    for (std::size_t d = 0; d < head_dim_; ++d) out[d] = to_f32(tile[in_tile(slot, d)]);
  }
  void read_value(std::size_t slot, float* out) const noexcept {
    kernels::widen(values() + slot * row_size_, head_dim_, 1.0f, out);
  }
  void write_key(std::size_t slot, const float* k) noexcept {
    K* tile = key_data() + slot / kernels::kTile * tile_size();
    for (std::size_t d = 0; d < head_dim_; ++d) tile[in_tile(slot, d)] = from_f32<K>(k[d]);
    if (head_dim_ % 2 != 0) tile[in_tile(slot, head_dim_)] = from_f32<K>(0.0f);
  }
  void write_value(std::size_t slot, const float* v) noexcept {
    V* row = value_data() + slot * row_size_;
    kernels::narrow(v, head_dim_, row);
    for (std::size_t d = head_dim_; d < row_size_; ++d) row[d] = from_f32<V>(0.0f);
  }

  // Copies an entry as it is stored, bit for bit, from a slot of `other` (which may be this head).
  void copy(const Head& other, std::size_t from, std::size_t to) noexcept {
    const K* source = other.key_data() + from / kernels::kTile * tile_size();
    K* target = key_data() + to / kernels::kTile * tile_size();
    for (std::size_t d = 0; d < 2 * pairs_; ++d) target[in_tile(to, d)] = source[in_tile(from, d)];
    std::memcpy(value_data() + to * row_size_, other.values() + from * row_size_, row_size_ * sizeof(V));
    position()[to] = other.position()[from];
    if (fields_.score) score()[to] = other.score()[from];
    if (fields_.mass) {
      mass()[to] = other.mass()[from];
      bias()[to] = other.bias()[from];
    }
  }
  void move(std::size_t from, std::size_t to) noexcept {
    if (from != to) copy(*this, from, to);
  }

  // Two slots change places; no third one is needed.
  void exchange(std::size_t a, std::size_t b) noexcept {
    if (a == b) return;
    K* x = key_data() + a / kernels::kTile * tile_size();
    K* y = key_data() + b / kernels::kTile * tile_size();
    for (std::size_t d = 0; d < 2 * pairs_; ++d) std::swap(x[in_tile(a, d)], y[in_tile(b, d)]);
    std::swap_ranges(value_data() + a * row_size_, value_data() + (a + 1) * row_size_,
                     value_data() + b * row_size_);
    std::swap(position()[a], position()[b]);
    if (fields_.score) std::swap(score()[a], score()[b]);
    if (fields_.mass) {
      std::swap(mass()[a], mass()[b]);
      std::swap(bias()[a], bias()[b]);
    }
  }

  void set_size(std::size_t entries) noexcept { size_ = entries; }
  std::uint32_t& position_at(std::size_t slot) noexcept { return position()[slot]; }

  void swap(Head& other) noexcept {
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    keys_.swap(other.keys_);
    values_.swap(other.values_);
    score_.swap(other.score_);
    mass_.swap(other.mass_);
    bias_.swap(other.bias_);
    position_.swap(other.position_);
  }

  // An empty head of the same kind.
  Head sibling() const { return Head(head_dim_, fields_, ledger_); }

 private:
  K* key_data() const noexcept { return reinterpret_cast<K*>(keys_.data()); }
  V* value_data() const noexcept { return reinterpret_cast<V*>(values_.data()); }
  std::size_t tile_size() const noexcept { return pairs_ * 2 * kernels::kTile; }

  // Element of (slot, dim) inside its tile: pairs for 16-bit types, whole dims for f32.
  static std::size_t in_tile(std::size_t slot, std::size_t d) noexcept {
    const std::size_t s = slot % kernels::kTile;
    return sizeof(K) == 2 ? d / 2 * 32 + s * 2 + d % 2 : d * kernels::kTile + s;
  }

  void resize_blocks(std::size_t entries) {
    const std::size_t padded = kernels::round_up(entries, kernels::kTile);
    keys_.resize(padded / kernels::kTile * tile_size() * sizeof(K));
    values_.resize(entries * row_size_ * sizeof(V));
    position_.resize(padded * sizeof(std::uint32_t));
    if (fields_.score) score_.resize(padded * sizeof(float));
    if (fields_.mass) {
      mass_.resize(padded * sizeof(float));
      bias_.resize(padded * sizeof(float));
    }
    capacity_ = entries;
  }

  std::size_t head_dim_;
  std::size_t pairs_;
  std::size_t row_size_;
  EntryFields fields_;
  ByteLedger* ledger_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  Block keys_;      // [capacity / 16] tiles
  Block values_;    // [capacity][row_size]
  Block score_;     // [capacity padded to 16]
  Block mass_;      // [capacity padded to 16]
  Block bias_;      // [capacity padded to 16]
  Block position_;  // [capacity padded to 16]
};

}  // namespace zeromerge
