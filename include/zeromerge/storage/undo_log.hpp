// What the newest decoded tokens have changed in a head, so that they can be taken back: a step for each
// token, a step a list of records (what stood where before it was written), undone last first. Steps that
// leave the window are forgotten. The records of a step lie one behind another in a ring of bytes:
//   record  payload, padded to 4 bytes; slot u32; kind and bytes of the payload u32
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "zeromerge/memory/block.hpp"

namespace zeromerge {

class UndoLog {
 public:
  enum class Kind : std::uint8_t {
    note,       // of the owner: what it was when the step began
    division,   // of the owner
    keys,       // a row of keys as it was stored
    values,     // a row of values
    fields,     // position, mass and bias, score of an entry
    copied,     // what stood here stands at another slot as well
    exchanged,  // two slots changed places
    rotated,    // several did
    keys_packed,
    values_packed,  // rows joined groups
    keys_cut,
    values_cut  // a group was cut
  };
  struct Record {
    Kind kind;
    std::size_t slot;
    const char* payload;
  };
  // What a record of so many bytes takes.
  static constexpr std::size_t taken(std::size_t bytes) noexcept { return padded(bytes) + sizeof(Footer); }

  explicit UndoLog(ByteLedger* ledger) noexcept : data_(ledger), table_(ledger) {}
  explicit UndoLog(const UndoLog&) = default;
  UndoLog(UndoLog&&) noexcept = default;
  UndoLog& operator=(UndoLog&&) noexcept = default;

  std::size_t bytes() const noexcept { return data_.bytes() + table_.bytes(); }
  void count_in(ByteLedger* ledger) noexcept {
    data_.count_in(ledger);
    table_.count_in(ledger);
  }
  std::size_t steps() const noexcept { return count_; }  // that can be taken back
  bool started() const noexcept { return started_; }
  // Nothing has been forgotten since it started: behind its steps the head is as it was then.
  bool whole() const noexcept { return whole_; }
  bool recording() const noexcept { return recording_; }
  // Tokens before its first step that can be taken back without a record, see start().
  std::size_t base() const noexcept { return base_; }
  std::size_t recorded() const noexcept { return recorded_; }  // bytes of all steps

  // Room for `steps` more, of which a window of `window` is kept: each takes `usual` bytes of records, none
  // more than `most`. Where steps come to more than that, as their number lets expect, there is room for
  // that. Throws std::bad_alloc with nothing changed.
  void reserve(std::size_t window, std::size_t steps, std::size_t usual, std::size_t most) {
    if (window_ == 0) {
      table_.resize(window * sizeof(Step));
      window_ = static_cast<std::uint32_t>(window);
    }
    most_ = most;
    const std::size_t kept = std::min(window, steps);
    std::size_t live = recorded_;
    for (std::size_t i = 0; i + (window - kept) < count_; ++i) live -= step(i).end - step(i).begin;
    const std::size_t average = count_ == 0 ? 0 : recorded_ / count_;
    const std::size_t each = std::min(most, std::max(usual, average * 3 / 2));
    const std::size_t needed = live + usual + (kept - 1) * each + 2 * most;
    if (data_.bytes() >= needed) return;
    grow(std::max(needed, data_.bytes() == 0 ? window * usual + 2 * most : data_.bytes() / 4 * 5));
  }

  // From now on every token is a step.
  void start(std::size_t base) noexcept {
    started_ = true;
    base_ = base;
  }

  // A step begins, which has one record at least; what does not fit any more is forgotten, the oldest first.
  void begin() noexcept {
    if (count_ == window_) forget_oldest();
    while (!place() && count_ != 0) forget_oldest();
    begin_ = end_;
    fields_of_ = kNone;
    recording_ = open_ = true;
  }
  void end() noexcept {
    if (!open_) return;
    recording_ = open_ = false;
    step(count_) = {static_cast<std::uint32_t>(begin_), static_cast<std::uint32_t>(end_)};
    recorded_ += end_ - begin_;
    ++count_;
  }

  // Where the payload of the next record goes, with room for `bytes`; null if there is none, and then this
  // step and all before it can no longer be taken back.
  char* open(std::size_t bytes) noexcept {
    if (limit_ - end_ >= taken(bytes)) return data_.data() + end_;
    recording_ = open_ = false;
    count_ = 0;
    recorded_ = 0;
    whole_ = false;
    return nullptr;
  }
  void close(Kind kind, std::size_t slot, std::size_t bytes) noexcept {
    if (kind != Kind::keys && kind != Kind::values) fields_of_ = kind == Kind::fields ? slot : kNone;
    const Footer footer{static_cast<std::uint32_t>(slot),
                        static_cast<std::uint32_t>(bytes << 4 | static_cast<std::size_t>(kind))};
    end_ += padded(bytes);
    std::memcpy(data_.data() + end_, &footer, sizeof footer);
    end_ += sizeof footer;
  }
  // Whether nothing but rows of this entry has been recorded since its fields were.
  bool has_fields_of(std::size_t slot) const noexcept { return fields_of_ == slot; }
  template <class T>
  void add(Kind kind, std::size_t slot, const T& payload) noexcept {
    char* to = open(sizeof payload);
    if (to == nullptr) return;
    std::memcpy(to, &payload, sizeof payload);
    close(kind, slot, sizeof payload);
  }

  // What is changed meanwhile is not recorded.
  void pause(bool paused) noexcept { recording_ = !paused && open_; }

  // Whether a step that could be taken back holds a record of these kinds.
  bool holds(Kind first, Kind second) const noexcept {
    bool found = false;
    for (std::size_t i = 0; i < count_ && !found; ++i)
      each(step(i), [&](const Record& r) { found = found || r.kind == first || r.kind == second; });
    return found;
  }

  // The newest step: undo(record) for its records, last first; then it is forgotten.
  template <class Undo>
  void take_back(const Undo& undo) {
    const Step& newest = step(count_ - 1);
    each(newest, undo);
    recorded_ -= newest.end - newest.begin;
    --count_;
  }
  // The head is what it was when the log started: as if it had not.
  void stop() noexcept { started_ = started_ && !(count_ == 0 && whole_); }

  // Forgets all steps and gives the memory back.
  void release() noexcept {
    data_.resize(0);
    table_.resize(0);
    window_ = first_ = count_ = 0;
    begin_ = end_ = limit_ = most_ = base_ = recorded_ = 0;
    recording_ = open_ = started_ = false;
    whole_ = true;
  }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  struct Step {
    std::uint32_t begin, end;
  };
  struct Footer {
    std::uint32_t slot, what;
  };
  static constexpr std::size_t padded(std::size_t bytes) noexcept { return (bytes + 3) / 4 * 4; }

  // From the oldest on; the one behind the newest is that which is being recorded.
  Step& step(std::size_t i) const noexcept {
    return reinterpret_cast<Step*>(table_.data())[(first_ + i) % window_];
  }
  void forget_oldest() noexcept {
    recorded_ -= step(0).end - step(0).begin;
    first_ = (first_ + 1) % window_;
    --count_;
    whole_ = false;
  }

  // Finds room for the largest step, in one piece.
  bool place() noexcept {
    if (count_ == 0) {
      end_ = 0;
      limit_ = data_.bytes();
      return limit_ >= most_;
    }
    const std::size_t newest = step(count_ - 1).end;
    const std::size_t oldest = step(0).begin;
    end_ = newest;
    limit_ = newest > oldest ? data_.bytes() : oldest;
    if (limit_ - end_ >= most_) return true;
    if (newest <= oldest || oldest < most_) return false;
    end_ = 0;
    limit_ = oldest;
    return true;
  }

  // The steps one behind another in a block of so many bytes.
  void grow(std::size_t bytes) {
    Block data = data_.sibling();
    data.resize(bytes);
    std::uint32_t at = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      const std::uint32_t n = step(i).end - step(i).begin;
      std::memcpy(data.data() + at, data_.data() + step(i).begin, n);
      step(i) = {at, at + n};
      at += n;
    }
    data_ = std::move(data);
  }

  template <class F>
  void each(const Step& step, const F& f) const {
    for (std::size_t end = step.end; end > step.begin;) {
      Footer footer;
      end -= sizeof footer;
      std::memcpy(&footer, data_.data() + end, sizeof footer);
      end -= padded(footer.what >> 4);
      f(Record{static_cast<Kind>(footer.what & 15), footer.slot, data_.data() + end});
    }
  }

  Block data_;
  Block table_;               // Step[window]
  std::uint32_t window_ = 0;  // steps at most
  std::uint32_t first_ = 0;   // the oldest step's place in the table
  std::uint32_t count_ = 0;
  std::size_t begin_ = 0, end_ = 0, limit_ = 0;  // of the step that is recorded
  std::size_t most_ = 0;
  std::size_t base_ = 0;
  std::size_t fields_of_ = kNone;
  std::size_t recorded_ = 0;
  bool recording_ = false;
  bool open_ = false;  // a step has begun
  bool started_ = false;
  bool whole_ = true;
};

}  // namespace zeromerge
