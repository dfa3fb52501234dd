// The entries of one kv head: keys, values, and what a policy keeps beside them. Slots are storage places,
// never positions: each entry knows its original position. Heads are ragged: each owns just the bytes of its
// own entries.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include "zeromerge/storage/any_rows.hpp"
#include "zeromerge/storage/score_images.hpp"
#include "zeromerge/storage/undo_log.hpp"

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
        position_(ledger),
        log_(ledger),
        images_(ledger) {}

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
           position_.bytes() + undo_bytes();
  }
  std::size_t undo_bytes() const noexcept { return log_.bytes() + images_.bytes(); }  // of them

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
  // The same as entries come, which pack() packs: `loose` is what stays out of groups now and later. tight:
  // with no more room for those that wait than they need; see PackedRows.
  void make_room(std::size_t entries, const LooseRows (&loose)[2], bool tight) {
    keys_.make_room(entries, loose[0].keys, loose[1].keys, tight);
    values_.make_room(entries, loose[0].values, loose[1].values, tight);
    resize_fields(entries);
  }
  // Whether what there is falls short of that, for as many entries as it has room for, or is more than that.
  bool lacks(const LooseRows (&loose)[2]) const noexcept {
    return keys_.lacks(capacity_, loose[0].keys, loose[1].keys) ||
           values_.lacks(capacity_, loose[0].values, loose[1].values);
  }
  bool spares(std::size_t entries, const LooseRows (&loose)[2]) const noexcept {
    return keys_.spares(entries, loose[0].keys, loose[1].keys) ||
           values_.spares(entries, loose[0].values, loose[1].values);
  }
  bool packs_late() const noexcept { return keys_.packs_late() || values_.packs_late(); }
  // From which slot on entries move and change places bit for bit: those in groups do not.
  std::size_t exact_from() const noexcept { return std::max(keys_.exact_from(), values_.exact_from()); }
  // Down to which slot the last entries can be cut off.
  std::size_t plain_from() const noexcept { return std::max(keys_.plain_from(), values_.plain_from()); }
  // Packs groups that have filled; there is room.
  void pack(LooseRows loose = {}) noexcept {
    log_packing(UndoLog::Kind::keys_packed, keys_, loose.keys);
    log_packing(UndoLog::Kind::values_packed, values_, loose.values);
    keys_.pack(size_, loose.keys);
    values_.pack(size_, loose.values);
  }

  void clear() noexcept {
    size_ = capacity_ = 0;
    keys_.clear();
    values_.clear();
    for (Block* block : {&score_, &mass_, &bias_, &position_}) block->resize(0);
    keep_nothing();
  }
  // Room for more is to be reserved anew where entries are packed.
  void truncate(std::size_t entries) noexcept {
    size_ = entries < size_ ? entries : size_;
    if (packs_late()) capacity_ = size_;
    keys_.truncate(size_);
    values_.truncate(size_);
  }
  // Gives back the room that no entry takes, of a prompt; where that asks for memory itself and there is
  // none, it stays.
  void shrink() noexcept {
    const auto give_back = [&] {
      keys_.shrink(size_);
      values_.shrink(size_);
      resize_fields(size_);
    };
#if defined(__cpp_exceptions)
    try {
      give_back();
    } catch (const std::bad_alloc&) {
      capacity_ = std::min(capacity_, size_);
    }
#else
    give_back();
#endif
  }
  // Forgets the last entries of a head that goes on taking tokens in its final form.
  void cut(std::size_t entries) noexcept {
    log_cut(UndoLog::Kind::keys_cut, keys_, entries);
    log_cut(UndoLog::Kind::values_cut, values_, entries);
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
  void write_key(std::size_t slot, const float* k) noexcept {
    log_fields(slot);
    change(UndoLog::Kind::keys, keys_, slot, [&](auto& rows) { rows.write(slot, k); });
  }
  void write_value(std::size_t slot, const float* v) noexcept {
    log_fields(slot);
    change(UndoLog::Kind::values, values_, slot, [&](auto& rows) { rows.write(slot, v); });
  }

  // Copies an entry from a slot of `other` (which may be this head): as it is stored, bit for bit, except
  // into and out of quantised groups.
  void copy(const Head& other, std::size_t from, std::size_t to) noexcept {
    log_fields(to);
    change(UndoLog::Kind::keys, keys_, to, [&](auto& rows) { rows.copy(other.keys_, from, to); });
    change(UndoLog::Kind::values, values_, to, [&](auto& rows) { rows.copy(other.values_, from, to); });
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
  // The same where what stands in `to` has just been moved to `kept`.
  void move_over(std::size_t from, std::size_t to, std::size_t kept) noexcept {
    if (from == to) return;
    if (!log_.recording() || !log_copy(to, kept)) return copy(*this, from, to);
    unlogged([&] { copy(*this, from, to); });
  }
  // What stands in `slot` has been moved to `kept`, and the slot is about to be forgotten.
  void keep(std::size_t slot, std::size_t kept) noexcept {
    if (!log_.recording() || log_copy(slot, kept)) return;
    log_fields(slot);
    change(UndoLog::Kind::keys, keys_, slot, [](auto&) {});
    change(UndoLog::Kind::values, values_, slot, [](auto&) {});
  }

  // Two slots change places; no third one is needed.
  void exchange(std::size_t a, std::size_t b) noexcept {
    if (a == b) return;
    if (log_.recording() && std::min(a, b) >= exact_from()) {
      log_.add(UndoLog::Kind::exchanged, a, static_cast<std::uint32_t>(b));
      return unlogged([&] { exchange(a, b); });
    }
    for (const std::size_t slot : {a, b}) log_fields(slot);
    exchange_rows(UndoLog::Kind::keys, keys_, a, b);
    exchange_rows(UndoLog::Kind::values, values_, a, b);
    std::swap(position()[a], position()[b]);
    if (fields_.score) std::swap(score()[a], score()[b]);
    if (fields_.mass) {
      std::swap(mass()[a], mass()[b]);
      std::swap(bias()[a], bias()[b]);
    }
  }

  // Turns the entries of slots [first, first + places) so that the one at first + `next` comes first, in
  // place; all of them from exact_from() on.
  void rotate(std::size_t first, std::size_t places, std::size_t next) noexcept {
    if (log_.recording())
      log_.add(UndoLog::Kind::rotated, first,
               Turn{static_cast<std::uint32_t>(places), static_cast<std::uint32_t>(places - next)});
    unlogged([&] {
      reverse(first, first + next);
      reverse(first + next, first + places);
      reverse(first, first + places);
    });
  }

  // ---- taking back: while the log records a step, what the calls above change in this head is written down.
  // An entry's score, mass, bias and position are to be changed after its rows only, or as part of them.
  UndoLog& log() noexcept { return log_; }
  const UndoLog& log() const noexcept { return log_; }
  ScoreImages& images() noexcept { return images_; }
  const ScoreImages& images() const noexcept { return images_; }
  void keep_scores() noexcept {
    if (fields_.score) images_.take(score(), size_);
  }
  void keep_nothing() noexcept {
    log_.release();
    images_.release();
  }
  // Bytes of the records of one entry that is written: at most, or on average.
  std::size_t entry_record_bytes(bool most) const noexcept {
    return UndoLog::taken(most ? keys_.image_bytes() : keys_.usual_image_bytes()) +
           UndoLog::taken(most ? values_.image_bytes() : values_.usual_image_bytes()) +
           UndoLog::taken(fields_bytes());
  }
  // Of groups that are packed until there are `entries`, and cut by `rows`.
  std::size_t pack_record_bytes(std::size_t entries, LooseRows loose) const noexcept {
    return keys_.pack_image_bytes(entries, loose.keys) + values_.pack_image_bytes(entries, loose.values);
  }
  std::size_t cut_record_bytes(std::size_t rows) const noexcept {
    return keys_.most_cut_bytes(rows) + values_.most_cut_bytes(rows);
  }
  // Takes back what a record of rows or fields says. A score comes back times `faded`.
  void undo(const UndoLog::Record& record, float faded) noexcept {
    using Kind = UndoLog::Kind;
    switch (record.kind) {
      case Kind::keys:
        return keys_.restore(record.slot, record.payload);
      case Kind::values:
        return values_.restore(record.slot, record.payload);
      case Kind::fields:
        return restore_fields(record.slot, record.payload, faded);
      case Kind::copied:
        return copy(*this, number_at(record.payload), record.slot);
      case Kind::exchanged:
        return exchange(record.slot, number_at(record.payload));
      case Kind::rotated: {
        Turn turn;
        std::memcpy(&turn, record.payload, sizeof turn);
        return rotate(record.slot, turn.places, turn.next);
      }
      case Kind::keys_packed:
        return keys_.restore_pack(size_, record.payload);
      case Kind::values_packed:
        return values_.restore_pack(size_, record.payload);
      case Kind::keys_cut:
        return keys_.restore_cut(record.slot, record.payload);
      case Kind::values_cut:
        return values_.restore_cut(record.slot, record.payload);
      default:
        return;
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
    log_.count_in(ledger);
    images_.count_in(ledger);
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
    std::swap(log_, other.log_);
    std::swap(images_, other.images_);
  }

  // An empty head of the same kind, whose bytes count in the same ledger or in another.
  Head sibling() const { return sibling(ledger_); }
  Head sibling(ByteLedger* ledger) const { return Head(head_dim_, fields_, ledger, key_type_, value_type_); }

 private:
  struct Fields {
    std::uint32_t position;
    float score, mass, bias;  // the last ones only where there are masses
  };
  std::size_t fields_bytes() const noexcept {
    return fields_.mass ? sizeof(Fields) : fields_.score ? 2 * sizeof(float) : sizeof(float);
  }
  struct Turn {
    std::uint32_t places, next;
  };
  void reverse(std::size_t from, std::size_t to) noexcept {
    for (; from + 1 < to; ++from) exchange(from, --to);
  }
  static std::size_t number_at(const char* payload) noexcept {
    std::uint32_t number;
    std::memcpy(&number, payload, sizeof number);
    return number;
  }

  template <class F>
  void unlogged(const F& f) noexcept {
    log_.pause(true);
    f();
    log_.pause(false);
  }
  template <class Rows, class Write>
  void change(UndoLog::Kind kind, Rows& rows, std::size_t slot, const Write& write) noexcept {
    if (!log_.recording()) return write(rows);
    char* to = log_.open(rows.image_bytes());
    if (to == nullptr) return write(rows);
    log_.close(kind, slot, rows.record(slot, to, write));
  }
  template <class Rows>
  void exchange_rows(UndoLog::Kind kind, Rows& rows, std::size_t a, std::size_t b) noexcept {
    if (!log_.recording()) return rows.exchange(a, b);
    if (std::min(a, b) >= rows.exact_from()) {
      for (const std::size_t slot : {a, b}) change(kind, rows, slot, [](auto&) {});
      return rows.exchange(a, b);
    }
    float x[kMaxHeadDim];
    float y[kMaxHeadDim];
    rows.read(a, x);
    rows.read(b, y);
    change(kind, rows, a, [&](auto& r) { r.write(a, y); });
    change(kind, rows, b, [&](auto& r) { r.write(b, x); });
  }
  void log_fields(std::size_t slot) noexcept {
    if (!log_.recording() || log_.has_fields_of(slot)) return;
    const Fields fields{position()[slot], fields_.score ? score()[slot] : 0.0f,
                        fields_.mass ? mass()[slot] : 1.0f, fields_.mass ? bias()[slot] : 0.0f};
    if (char* to = log_.open(fields_bytes())) {
      std::memcpy(to, &fields, fields_bytes());
      log_.close(UndoLog::Kind::fields, slot, fields_bytes());
    }
  }
  void restore_fields(std::size_t slot, const char* payload, float faded) noexcept {
    Fields fields;
    std::memcpy(&fields, payload, fields_bytes());
    position()[slot] = fields.position;
    if (fields_.score) score()[slot] = fields.score * faded;
    if (fields_.mass) {
      mass()[slot] = fields.mass;
      bias()[slot] = fields.bias;
    }
  }
  // Notes that what stands in `slot` stands at `kept` too, if it does bit for bit.
  bool log_copy(std::size_t slot, std::size_t kept) noexcept {
    if (slot == kept || std::min(slot, kept) < exact_from()) return false;
    log_.add(UndoLog::Kind::copied, slot, static_cast<std::uint32_t>(kept));
    return true;
  }
  template <class Rows>
  void log_packing(UndoLog::Kind kind, const Rows& rows, std::size_t loose) noexcept {
    const std::size_t bytes = log_.recording() ? rows.pack_image_bytes(size_, loose) : 0;
    if (bytes == 0) return;
    if (char* to = log_.open(bytes)) {
      rows.save_pack(size_, loose, to);
      log_.close(kind, 0, bytes);
    }
  }
  template <class Rows>
  void log_cut(UndoLog::Kind kind, const Rows& rows, std::size_t entries) noexcept {
    const std::size_t bytes = log_.recording() ? rows.cut_image_bytes(entries) : 0;
    if (bytes == 0) return;
    if (char* to = log_.open(bytes)) {
      rows.save_cut(entries, to);
      log_.close(kind, entries, bytes);
    }
  }

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
  UndoLog log_;
  ScoreImages images_;
};

}  // namespace zeromerge
