// The rows of a head behind those that are packed in groups: f16 while a prompt comes, so that nothing is
// rounded twice on its way into a group, and 8 bits from then on, when the last tokens wait there, or all
// keys stay (Policy::precise_from).
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "zeromerge/core/geometry.hpp"
#include "zeromerge/storage/keys.hpp"
#include "zeromerge/storage/values.hpp"

namespace zeromerge::detail {

// Rows: Keys or Values, whose calls these are.
template <template <class> class Rows>
class TailRows {
 public:
  TailRows(std::size_t head_dim, ByteLedger* ledger) : wide_(head_dim, ledger), narrow_(head_dim, ledger) {}

  std::size_t bytes() const noexcept { return wide_.bytes() + narrow_.bytes(); }
  // Of so many settled rows.
  std::size_t bytes_for(std::size_t rows, Block::Sizing sized) const noexcept {
    return narrow_.bytes_for(0, rows, 0, sized);
  }
  bool settled() const noexcept { return settled_; }
  // Of these one has rows, by settled().
  typename Rows<f16>::View wide() const noexcept { return wide_.view(); }
  typename Rows<q8>::View narrow() const noexcept { return narrow_.view(); }

  // Room for exactly `rows`, what fits stays: in the form that they have, in f16, in 8 bits. Throws
  // std::bad_alloc with nothing changed.
  void resize(std::size_t rows) {
    settled_ ? narrow_.resize(rows) : wide_.resize(rows);
    room_ = rows;
  }
  void widen(std::size_t rows) {
    if (settled_) change(narrow_, wide_, rows);
    settled_ = false;
    resize(rows);
  }
  void settle(std::size_t rows) {
    if (!settled_) change(wide_, narrow_, rows);
    settled_ = true;
    resize(rows);
  }

  void read(std::size_t slot, float* out) const noexcept {
    settled_ ? narrow_.read(slot, out) : wide_.read(slot, out);
  }
  void write(std::size_t slot, const float* row) noexcept {
    settled_ ? narrow_.write(slot, row) : wide_.write(slot, row);
  }
  void expect(std::size_t slot) const noexcept { settled_ ? narrow_.expect(slot) : wide_.expect(slot); }
  // Bit for bit between rows of one form.
  void copy(const TailRows& other, std::size_t from, std::size_t to) noexcept {
    if (settled_ && other.settled_) return narrow_.copy(other.narrow_, from, to);
    if (!settled_ && !other.settled_) return wide_.copy(other.wide_, from, to);
    float row[kMaxHeadDim];
    other.read(from, row);
    write(to, row);
  }
  void exchange(std::size_t a, std::size_t b) noexcept {
    settled_ ? narrow_.exchange(a, b) : wide_.exchange(a, b);
  }
  std::size_t room() const noexcept { return room_; }  // rows
  std::size_t image_bytes() const noexcept { return settled_ ? narrow_.image_bytes() : wide_.image_bytes(); }
  void save(std::size_t slot, char* to) const noexcept {
    settled_ ? narrow_.save(slot, to) : wide_.save(slot, to);
  }
  void restore(std::size_t slot, const char* from) noexcept {
    settled_ ? narrow_.restore(slot, from) : wide_.restore(slot, from);
  }
  void clear() noexcept {
    settled_ = false;
    room_ = 0;
    wide_.clear();
    narrow_.clear();
  }
  void count_in(ByteLedger* ledger) noexcept {
    wide_.count_in(ledger);
    narrow_.count_in(ledger);
  }
  void swap(TailRows& other) noexcept {
    std::swap(settled_, other.settled_);
    std::swap(room_, other.room_);
    wide_.swap(other.wide_);
    narrow_.swap(other.narrow_);
  }

 private:
  template <class From, class To>
  void change(From& from, To& to, std::size_t rows) {
    to.resize(rows);
    float row[kMaxHeadDim];
    for (std::size_t j = 0; j < std::min(rows, room_); ++j) {  // what is not written yet reads as a number
      from.read(j, row);
      to.write(j, row);
    }
    from.clear();
  }

  bool settled_ = false;
  std::size_t room_ = 0;
  Rows<f16> wide_;
  Rows<q8> narrow_;
};

}  // namespace zeromerge::detail
