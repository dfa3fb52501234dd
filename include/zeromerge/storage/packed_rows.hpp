// Rows in groups of 32 that are quantised together (q4). New rows wait behind the groups until 32 of them
// fill one: everything new during a prompt, in f16, until settle() packs it; then what fills no group, in 8
// bits (tail_rows.hpp). The last rows, which are written anew again and again (the ring of last tokens), can
// be kept out of groups for good; so can all of them, which makes this storage in 8 bits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "zeromerge/storage/codec_q4.hpp"
#include "zeromerge/storage/tail_rows.hpp"

namespace zeromerge {

// The last entries of a head that are never packed in groups, where its keys or values are.
struct LooseRows {
  static constexpr std::size_t kAll = std::size_t{1} << 31;  // more than any head holds
  std::size_t keys = 0;
  std::size_t values = 0;
};

}  // namespace zeromerge

namespace zeromerge::detail {

template <class Codec, template <class> class Rows>
class PackedRows {
 public:
  using View = typename Codec::View;

  PackedRows(std::size_t head_dim, ByteLedger* ledger, StorageType = StorageType::q4)
      : head_dim_(head_dim), codec_(head_dim), groups_(ledger), tail_(head_dim, ledger) {}

  std::size_t bytes() const noexcept { return groups_.bytes() + tail_.bytes(); }
  // What `size` rows, settled with room for `rows`, take.
  std::size_t bytes_for(std::size_t size, std::size_t rows, std::size_t loose,
                        Block::Sizing sized) const noexcept {
    const std::size_t packed = whole_groups(size - std::min(size, loose));
    return sized(groups_bytes(packed, rows, loose)) + tail_.bytes_for(tail_rows(packed, rows, loose), sized);
  }
  View view() const noexcept { return codec_.view(groups_.data(), packed_, tail_); }
  template <class F>
  decltype(auto) visit(const F& f) const {
    return f(view());
  }

  bool packs_late() const noexcept { return true; }
  // The first row that is copied and exchanged bit for bit.
  std::size_t exact_from() const noexcept { return packed_; }
  // Whether the rows behind the groups are in 8 bits.
  bool settled() const noexcept { return tail_.settled(); }

  // Room for `rows`, all that are not packed in f16.
  void resize(std::size_t rows) { tail_.widen(rows > packed_ ? rows - packed_ : 0); }

  // Packs every whole group of the first `size` rows, the last `loose` aside, which never are from now on,
  // and leaves room for `rows`. Throws std::bad_alloc with nothing changed that matters.
  void settle(std::size_t size, std::size_t rows, std::size_t loose) {
    loose_ = loose;
    unpack(size, whole_groups(size - std::min(size, loose)));
    groups_.resize(groups_bytes(packed_, rows, loose));
    pack(size, loose);
    tail_.settle(tail_rows(packed_, rows, loose));
  }

  // Room for `rows` of which some join groups as they come, when `loose` of the last stay behind them now and
  // `later` then; for no fewer rows behind the groups than there is unless it is to be `tight`.
  void make_room(std::size_t rows, std::size_t loose, std::size_t later, bool tight) {
    groups_.resize(std::max(groups_bytes(packed_, rows, loose), groups_bytes(packed_, rows, later)));
    tail_.settle(std::max(tight ? 0 : tail_.room(), waiting(rows, loose, later)));
  }
  // Whether that would take more memory, or give some back.
  bool lacks(std::size_t rows, std::size_t loose, std::size_t later) const noexcept {
    return tail_.room() < waiting(rows, loose, later) ||
           groups_.bytes() < groups_bytes(packed_, rows, loose) ||
           groups_.bytes() < groups_bytes(packed_, rows, later);
  }
  bool spares(std::size_t rows, std::size_t loose, std::size_t later) const noexcept {
    return tail_.room() > waiting(rows, loose, later);
  }

  // Packs what fills groups, the last `loose` aside from now on, without taking or giving memory: there is
  // room.
  void pack(std::size_t size, std::size_t loose) noexcept {
    loose_ = loose;
    const std::size_t begin = packed_;
    for (; size >= packed_ + kernels::kGroup + loose_; packed_ += kernels::kGroup)
      codec_.write_group(group(packed_), tail_, packed_ - begin);
    for (std::size_t j = packed_; begin != packed_ && j < size; ++j)
      tail_.copy(tail_, j - begin, j - packed_);
  }
  void pack(std::size_t size) noexcept { pack(size, loose_); }
  // The last rows down to this one can be cut off with the room there is.
  std::size_t plain_from() const noexcept { return loose_ == 0 ? 0 : packed_; }

  void read(std::size_t slot, float* out) const noexcept {
    if (slot < packed_)
      codec_.read(group(slot), slot % kernels::kGroup, out);
    else
      tail_.read(slot - packed_, out);
  }
  void expect(std::size_t slot) const noexcept {
    if (slot >= packed_) tail_.expect(slot - packed_);
  }
  void write(std::size_t slot, const float* row) noexcept {
    if (slot < packed_)
      codec_.write(group(slot), slot % kernels::kGroup, row);
    else
      tail_.write(slot - packed_, row);
  }
  void copy(const PackedRows& other, std::size_t from, std::size_t to) noexcept {
    if (from >= other.packed_ && to >= packed_)
      return tail_.copy(other.tail_, from - other.packed_, to - packed_);
    float row[kMaxHeadDim];
    other.read(from, row);
    write(to, row);
  }
  void exchange(std::size_t a, std::size_t b) noexcept {
    if (a >= packed_ && b >= packed_) return tail_.exchange(a - packed_, b - packed_);
    float x[kMaxHeadDim];
    float y[kMaxHeadDim];
    read(a, x);
    read(b, y);
    write(a, y);
    write(b, x);
  }

  // See Keys.
  std::size_t image_bytes() const noexcept { return std::max(tail_.image_bytes(), codec_.image_bytes()); }
  template <class Write>
  std::size_t record(std::size_t slot, char* to, const Write& write) noexcept {
    if (slot < packed_) return codec_.record(group(slot), slot % kernels::kGroup, to, [&] { write(*this); });
    tail_.save(slot - packed_, to);
    write(*this);
    return tail_.image_bytes();
  }
  void restore(std::size_t slot, const char* from) noexcept {
    if (slot < packed_)
      codec_.restore(group(slot), slot % kernels::kGroup, from);
    else
      tail_.restore(slot - packed_, from);
  }

  // On average, where new rows are like those of their group.
  std::size_t usual_image_bytes() const noexcept {
    return std::max(tail_.image_bytes(), codec_.usual_image_bytes());
  }
  std::size_t most_cut_bytes(std::size_t rows) const noexcept {
    return sizeof(Packing) + (rows / kernels::kGroup + 2) * codec_.group_bytes();
  }

  // What pack(size, loose) and cut(size) are about to change: bytes (0: nothing), what takes it back, and
  // back.
  std::size_t pack_image_bytes(std::size_t size, std::size_t loose) const noexcept {
    const std::size_t joining = joining_rows(size, loose);
    return joining == 0 && loose == loose_ ? 0 : sizeof(Packing) + joining * tail_.image_bytes();
  }
  void save_pack(std::size_t size, std::size_t loose, char* to) const noexcept {
    to = save_packing(to);
    for (std::size_t j = 0; j < joining_rows(size, loose); ++j, to += tail_.image_bytes()) tail_.save(j, to);
  }
  void restore_pack(std::size_t size, const char* from) noexcept {
    const Packing before = packing_at(from);
    from += sizeof before;
    const std::size_t joined = packed_ - before.packed;
    if (joined != 0)
      for (std::size_t j = size - packed_; j-- > 0;) tail_.copy(tail_, j, j + joined);
    for (std::size_t j = 0; j < joined; ++j, from += tail_.image_bytes()) tail_.restore(j, from);
    packed_ = before.packed;
    loose_ = before.loose;
  }
  std::size_t cut_image_bytes(std::size_t size) const noexcept {
    return size >= packed_ ? 0 : sizeof(Packing) + cut_bytes(size, packed_);
  }
  void save_cut(std::size_t size, char* to) const noexcept {
    std::memcpy(save_packing(to), group(whole_groups(size)), cut_bytes(size, packed_));
  }
  void restore_cut(std::size_t size, const char* from) noexcept {
    packed_ = packing_at(from).packed;
    std::memcpy(group(whole_groups(size)), from + sizeof(Packing), cut_bytes(size, packed_));
  }

  // Rows from `size` on are forgotten; a group that is cut goes on as a group.
  void truncate(std::size_t size) noexcept {
    packed_ = std::min(packed_, kernels::round_up(size, kernels::kGroup));
  }
  // Gives back what these rows do not take.
  void shrink(std::size_t size) {
    groups_.resize(packed_ / kernels::kGroup * codec_.group_bytes());
    tail_.resize(size - std::min(size, packed_));
  }
  // Rows from `size` on are forgotten, and what is left of a cut group waits behind the groups again, where
  // new rows come behind it as they are given; settle() has made room.
  void cut(std::size_t size) noexcept {
    if (size >= packed_) return;
    packed_ = size / kernels::kGroup * kernels::kGroup;
    float row[kMaxHeadDim];
    for (std::size_t slot = packed_; slot < size; ++slot) {
      codec_.read(group(slot), slot % kernels::kGroup, row);
      tail_.write(slot - packed_, row);
    }
  }
  void clear() noexcept {
    packed_ = 0;
    groups_.resize(0);
    tail_.clear();
  }
  void count_in(ByteLedger* ledger) noexcept {
    groups_.count_in(ledger);
    tail_.count_in(ledger);
  }
  void swap(PackedRows& other) noexcept {
    std::swap(packed_, other.packed_);
    std::swap(loose_, other.loose_);
    groups_.swap(other.groups_);
    tail_.swap(other.tail_);
  }

 private:
  struct Packing {
    std::uint32_t packed, loose;
  };
  char* save_packing(char* to) const noexcept {
    const Packing now{static_cast<std::uint32_t>(packed_), static_cast<std::uint32_t>(loose_)};
    std::memcpy(to, &now, sizeof now);
    return to + sizeof now;
  }
  static Packing packing_at(const char* from) noexcept {
    Packing packing;
    std::memcpy(&packing, from, sizeof packing);
    return packing;
  }
  std::size_t joining_rows(std::size_t size, std::size_t loose) const noexcept {
    return whole_groups(size - std::min(size, packed_ + loose));
  }
  std::size_t waiting(std::size_t rows, std::size_t loose, std::size_t later) const noexcept {
    return std::max(tail_rows(packed_, rows, loose), tail_rows(packed_, rows, later));
  }
  std::size_t cut_bytes(std::size_t size, std::size_t packed) const noexcept {
    return (packed - whole_groups(size)) / kernels::kGroup * codec_.group_bytes();
  }
  static std::size_t whole_groups(std::size_t rows) noexcept {
    return rows / kernels::kGroup * kernels::kGroup;
  }
  // With room for `rows`, of which so many are packed.
  std::size_t groups_bytes(std::size_t packed, std::size_t rows, std::size_t loose) const noexcept {
    const std::size_t most = whole_groups(rows - std::min(rows, loose));
    return std::max(most, packed) / kernels::kGroup * codec_.group_bytes();
  }
  // Rows that are cut off may give a group back, but never with loose ones behind it.
  static std::size_t tail_rows(std::size_t packed, std::size_t rows, std::size_t loose) noexcept {
    const std::size_t most = kernels::kGroup + loose;
    return loose == 0 ? most : std::min(most, rows - std::min(rows, packed));
  }
  char* group(std::size_t slot) const noexcept {
    return groups_.data() + slot / kernels::kGroup * codec_.group_bytes();
  }

  // Rows from `first` on, a group's first, wait behind the groups again.
  void unpack(std::size_t size, std::size_t first) {
    if (packed_ <= first) return;
    tail_.resize(size - first);
    for (std::size_t slot = size; slot-- > packed_;) tail_.copy(tail_, slot - packed_, slot - first);
    float row[kMaxHeadDim];
    for (std::size_t slot = first; slot < std::min(size, packed_); ++slot) {
      codec_.read(group(slot), slot % kernels::kGroup, row);
      tail_.write(slot - first, row);
    }
    packed_ = first;
  }

  std::size_t head_dim_;
  Codec codec_;
  std::size_t packed_ = 0;  // rows in groups
  std::size_t loose_ = 0;   // last rows that stay behind them
  Block groups_;
  TailRows<Rows> tail_;  // the rows behind them
};

}  // namespace zeromerge::detail

namespace zeromerge {

template <>
class Keys<q4> : public detail::PackedRows<detail::KeyCodec4, Keys> {
 public:
  using PackedRows::PackedRows;
};
template <>
class Values<q4> : public detail::PackedRows<detail::ValueCodec4, Values> {
 public:
  using PackedRows::PackedRows;
};

}  // namespace zeromerge
