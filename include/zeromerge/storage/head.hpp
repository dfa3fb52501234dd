// The entries of one kv head: keys, values, and what a policy keeps beside them. Slots are storage places,
// never positions: each entry knows its original position. Heads are ragged: each owns just the bytes of its
// own entries.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "zeromerge/storage/any_rows.hpp"

namespace zeromerge {

// Which arrays a policy needs beside keys and values; the cache pays only for these.
struct EntryFields {
  bool score = false;
  bool mass = false;  // and the bias that follows from it
};

// K, V: how keys and values are stored: float, f16, bf16, q8, q4, or any_storage, which asks for the types.
template <class K, class V = K>
class Head {
 public:
  Head(std::size_t head_dim, EntryFields fields, ByteLedger* ledger, StorageType key_type = storage_of<K>,
       StorageType value_type = storage_of<V>)
      : head_dim_(head_dim),
        fields_(fields),
        ledger_(ledger),
        key_type_(key_type),
        value_type_(value_type),
        keys_(head_dim, ledger, key_type),
        values_(head_dim, ledger, value_type),
        score_(ledger),
        mass_(ledger),
        bias_(ledger),
        position_(ledger) {}

  // Everything, bit for bit, on the same ledger. Explicit, for it is never wanted by the way.
  explicit Head(const Head&) = default;
  Head(Head&&) noexcept = default;
  Head& operator=(Head&&) noexcept = default;

  std::size_t size() const noexcept { return size_; }
  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t head_dim() const noexcept { return head_dim_; }
  std::size_t row_size() const noexcept { return kernels::round_up(head_dim_, kernels::kTile); }
  EntryFields fields() const noexcept { return fields_; }
  std::size_t bytes() const noexcept {
    return keys_.bytes() + values_.bytes() + score_.bytes() + mass_.bytes() + bias_.bytes() +
           position_.bytes();
  }

  // What a head of this kind takes that ended a prompt with `size` entries and has room for `rows`, see
  // settle().
  std::size_t bytes_for(std::size_t size, std::size_t rows, LooseRows loose,
                        Block::Sizing sized) const noexcept {
    const std::size_t fields = (fields_.score ? 2 : 1) + (fields_.mass ? 2 : 0);
    return keys_.bytes_for(size, rows, loose.keys, sized) +
           values_.bytes_for(size, rows, loose.values, sized) +
           fields * sized(kernels::round_up(rows, kernels::kTile) * sizeof(float));
  }

  const Keys<K>& keys() const noexcept { return keys_; }
  const Values<V>& values() const noexcept { return values_; }
  float* score() const noexcept { return floats(score_); }  // [capacity] or null
  float* mass() const noexcept { return floats(mass_); }    // [capacity] or null
  float* bias() const noexcept { return floats(bias_); }    // [capacity] or null
  std::uint32_t* position() const noexcept { return reinterpret_cast<std::uint32_t*>(position_.data()); }

  // Room for at least `entries`, those to come as they are given (prompts); what is there stays. Throws
  // std::bad_alloc with nothing changed that matters.
  void reserve(std::size_t entries) {
    if (entries <= capacity_ && !packs_late()) return;
    fit(entries);
  }

  // Room for exactly `entries` (at least size()).
  void fit(std::size_t entries) {
    keys_.resize(entries);
    values_.resize(entries);
    resize_fields(entries);
  }

  // Room for exactly `entries`, in their final form: quantised groups are packed, all but `loose` and what
  // does not fill a group.
  void settle(std::size_t entries, LooseRows loose = {}) {
    keys_.settle(size_, entries, loose.keys);
    values_.settle(size_, entries, loose.values);
    resize_fields(entries);
  }
  // From which slot on entries change places bit for bit: those in groups do not.
  std::size_t exact_from() const noexcept { return std::max(keys_.exact_from(), values_.exact_from()); }
  bool packs_late() const noexcept { return keys_.packs_late() || values_.packs_late(); }
  // Packs a group that has just filled; settle() has made room.
  void pack() noexcept {
    keys_.pack(size_);
    values_.pack(size_);
  }

  void clear() noexcept {
    size_ = capacity_ = 0;
    keys_.clear();
    values_.clear();
    for (Block* block : {&score_, &mass_, &bias_, &position_}) block->resize(0);
  }
  // Room for more is to be reserved anew where entries are packed.
  void truncate(std::size_t entries) noexcept {
    size_ = entries < size_ ? entries : size_;
    if (packs_late()) capacity_ = size_;
    keys_.truncate(size_);
    values_.truncate(size_);
  }
  // Forgets the last entries of a head that goes on taking tokens in its final form.
  void cut(std::size_t entries) noexcept {
    size_ = entries;
    keys_.cut(entries);
    values_.cut(entries);
  }

  // An entry is about to be appended: what that writes is fetched meanwhile.
  void expect_one() const noexcept {
    keys_.expect(size_);
    values_.expect(size_);
    for (const Block* block : {&score_, &mass_, &bias_, &position_})
      if (block->data() != nullptr) __builtin_prefetch(block->data() + size_ * sizeof(float), 1);
  }

  // Adds one entry of mass 1, score 0 behind the last; room must have been reserved. k, v: [head_dim].
  void append(const float* k, const float* v, std::uint32_t position) noexcept {
    const std::size_t slot = size_++;
    keys_.write(slot, k);
    values_.write(slot, v);
    position_at(slot) = position;
    if (fields_.score) score()[slot] = 0.0f;
    if (fields_.mass) {
      mass()[slot] = 1.0f;
      bias()[slot] = 0.0f;
    }
  }

  void read_key(std::size_t slot, float* out) const noexcept { keys_.read(slot, out); }
  void read_value(std::size_t slot, float* out) const noexcept { values_.read(slot, out); }
  void write_key(std::size_t slot, const float* k) noexcept { keys_.write(slot, k); }
  void write_value(std::size_t slot, const float* v) noexcept { values_.write(slot, v); }

  // Copies an entry from a slot of `other` (which may be this head): as it is stored, bit for bit, except
  // into and out of quantised groups.
  void copy(const Head& other, std::size_t from, std::size_t to) noexcept {
    keys_.copy(other.keys_, from, to);
    values_.copy(other.values_, from, to);
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
    keys_.exchange(a, b);
    values_.exchange(a, b);
    std::swap(position()[a], position()[b]);
    if (fields_.score) std::swap(score()[a], score()[b]);
    if (fields_.mass) {
      std::swap(mass()[a], mass()[b]);
      std::swap(bias()[a], bias()[b]);
    }
  }

  void set_size(std::size_t entries) noexcept { size_ = entries; }
  std::uint32_t& position_at(std::size_t slot) noexcept { return position()[slot]; }

  // From now on its bytes count in another ledger.
  void count_in(ByteLedger* ledger) noexcept {
    ledger_ = ledger;
    keys_.count_in(ledger);
    values_.count_in(ledger);
    for (Block* block : {&score_, &mass_, &bias_, &position_}) block->count_in(ledger);
  }

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

  // An empty head of the same kind, whose bytes count in the same ledger or in another.
  Head sibling() const { return sibling(ledger_); }
  Head sibling(ByteLedger* ledger) const { return Head(head_dim_, fields_, ledger, key_type_, value_type_); }

 private:
  static float* floats(const Block& block) noexcept { return reinterpret_cast<float*>(block.data()); }

  void resize_fields(std::size_t entries) {
    const std::size_t padded = kernels::round_up(entries, kernels::kTile);
    position_.resize(padded * sizeof(std::uint32_t));
    if (fields_.score) score_.resize(padded * sizeof(float));
    if (fields_.mass) {
      mass_.resize(padded * sizeof(float));
      bias_.resize(padded * sizeof(float));
    }
    capacity_ = entries;
  }

  std::size_t head_dim_;
  EntryFields fields_;
  ByteLedger* ledger_;
  StorageType key_type_;
  StorageType value_type_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  Keys<K> keys_;
  Values<V> values_;
  Block score_;     // [capacity padded to 16]
  Block mass_;      // [capacity padded to 16]
  Block bias_;      // [capacity padded to 16]
  Block position_;  // [capacity padded to 16]
};

}  // namespace zeromerge
