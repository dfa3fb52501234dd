// Keys of one head in tiles of 16 entries (kernels/layout.hpp): f32, f16, bf16, and q8 with a scale per
// entry.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "zeromerge/kernels/kernels.hpp"
#include "zeromerge/memory/block.hpp"

namespace zeromerge {

// What a head asks of its keys and, with the same names, of its values (Values): rows by slot, read and
// written as f32. Rows that are not written yet are never NaN.
template <class T>
class Keys {
 public:
  using View = kernels::KeyTiles<T>;

  Keys(std::size_t head_dim, ByteLedger* ledger, StorageType = storage_of<T>)
      : head_dim_(head_dim),
        dims_(kernels::round_up(head_dim, kernels::pack_of<T>)),
        tiles_(ledger),
        scale_(ledger) {}

  std::size_t bytes() const noexcept { return tiles_.bytes() + scale_.bytes(); }
  // What room for `rows` takes; `size`, `loose`: see PackedRows.
  std::size_t bytes_for(std::size_t, std::size_t rows, std::size_t, Block::Sizing sized) const noexcept {
    return sized(tiles_bytes(rows)) + sized(scale_bytes(rows));
  }
  View view() const noexcept { return {data(), dims_, scale()}; }

  // Calls f with the view: where the type is known at run time only, f is instantiated for each.
  template <class F>
  decltype(auto) visit(const F& f) const {
    return f(view());
  }

  // Room for exactly `rows`; what fits in both sizes stays.
  void resize(std::size_t rows) {
    scale_.resize(scale_bytes(rows));
    tiles_.resize(tiles_bytes(rows));
  }
  static std::size_t exact_from() noexcept { return 0; }  // see PackedRows
  bool packs_late() const noexcept { return false; }
  void settle(std::size_t, std::size_t rows, std::size_t) { resize(rows); }
  void make_room(std::size_t rows, std::size_t, std::size_t, bool) { resize(rows); }
  static constexpr bool lacks(std::size_t, std::size_t, std::size_t) noexcept { return false; }
  static constexpr bool spares(std::size_t, std::size_t, std::size_t) noexcept { return false; }
  static constexpr std::size_t plain_from() noexcept { return 0; }  // see PackedRows
  void pack(std::size_t, std::size_t) noexcept {}

  void read(std::size_t slot, float* out) const noexcept {
    Stored column[kMaxHeadDim];
    for (std::size_t d = 0; d < head_dim_; ++d) column[d] = data()[place(slot, d)];
    if constexpr (std::is_same_v<T, q8>)
      kernels::decode_q8(column, head_dim_, scale()[slot], out);
    else
      kernels::widen(column, head_dim_, 1.0f, out);
  }

  // This slot is about to be written: its lines are fetched meanwhile.
  void expect(std::size_t slot) const noexcept {
    if (data() == nullptr) return;
    const char* tile = reinterpret_cast<const char*>(data() + slot / kernels::kTile * kernels::kTile * dims_);
    for (std::size_t i = 0; i < kernels::kTile * dims_ * sizeof(Stored); i += 64)
      __builtin_prefetch(tile + i, 1);
  }

  void write(std::size_t slot, const float* k) noexcept {
    Stored column[kMaxHeadDim + 4];
    if constexpr (std::is_same_v<T, q8>) {
      scale()[slot] = kernels::encode_q8(k, head_dim_, column);
      for (std::size_t d = head_dim_; d < dims_; ++d) column[d] = kernels::kZeroQ8;
    } else {
      kernels::narrow(k, head_dim_, column);
      for (std::size_t d = head_dim_; d < dims_; ++d) column[d] = from_f32<T>(0.0f);
    }
    for (std::size_t d = 0; d < dims_; ++d) data()[place(slot, d)] = column[d];
  }

  // One element, where rows are stored as plain numbers.
  float at(std::size_t slot, std::size_t d) const noexcept { return to_f32(data()[place(slot, d)]); }

  // As it is stored, bit for bit.
  void copy(const Keys& other, std::size_t from, std::size_t to) noexcept {
    const Stored* source = other.data() + place(from, 0);
    Stored* target = data() + place(to, 0);
    for (std::size_t d = 0; d < dims_;
         d += kPack, source += kernels::kTile * kPack, target += kernels::kTile * kPack)
      std::copy_n(source, kPack, target);
    if constexpr (std::is_same_v<T, q8>) scale()[to] = other.scale()[from];
  }

  void exchange(std::size_t a, std::size_t b) noexcept {
    for (std::size_t d = 0; d < dims_; ++d) std::swap(data()[place(a, d)], data()[place(b, d)]);
    if constexpr (std::is_same_v<T, q8>) std::swap(scale()[a], scale()[b]);
  }

  // A row as it is stored, and back. Bytes of one; where rows are in groups, at most.
  std::size_t image_bytes() const noexcept {
    return dims_ * sizeof(Stored) + (std::is_same_v<T, q8> ? sizeof(float) : 0);
  }
  void save(std::size_t slot, char* to) const noexcept {
    for (std::size_t d = 0; d < dims_; d += kPack, to += sizeof(Stored[kPack]))
      std::memcpy(to, data() + place(slot, d), sizeof(Stored[kPack]));
    if constexpr (std::is_same_v<T, q8>) std::memcpy(to, scale() + slot, sizeof(float));
  }
  void restore(std::size_t slot, const char* from) noexcept {
    for (std::size_t d = 0; d < dims_; d += kPack, from += sizeof(Stored[kPack]))
      std::memcpy(data() + place(slot, d), from, sizeof(Stored[kPack]));
    if constexpr (std::is_same_v<T, q8>) std::memcpy(scale() + slot, from, sizeof(float));
  }
  // Does write(*this), which changes this row alone; leaves what restore() needs and returns its bytes.
  template <class Write>
  std::size_t record(std::size_t slot, char* to, const Write& write) noexcept {
    save(slot, to);
    write(*this);
    return image_bytes();
  }

  std::size_t usual_image_bytes() const noexcept { return image_bytes(); }

  // Rows that are not packed: nothing, see PackedRows.
  static constexpr std::size_t most_cut_bytes(std::size_t) noexcept { return 0; }
  static constexpr std::size_t pack_image_bytes(std::size_t, std::size_t) noexcept { return 0; }
  void save_pack(std::size_t, std::size_t, char*) const noexcept {}
  void restore_pack(std::size_t, const char*) noexcept {}
  static constexpr std::size_t cut_image_bytes(std::size_t) noexcept { return 0; }
  void save_cut(std::size_t, char*) const noexcept {}
  void restore_cut(std::size_t, const char*) noexcept {}

  void truncate(std::size_t) noexcept {}
  void shrink(std::size_t size) { resize(size); }
  void cut(std::size_t) noexcept {}
  void clear() noexcept {
    tiles_.resize(0);
    scale_.resize(0);
  }
  void count_in(ByteLedger* ledger) noexcept {
    tiles_.count_in(ledger);
    scale_.count_in(ledger);
  }
  void swap(Keys& other) noexcept {
    tiles_.swap(other.tiles_);
    scale_.swap(other.scale_);
  }

 private:
  using Stored = kernels::stored<T>;
  static constexpr std::size_t kPack = kernels::pack_of<T>;
  Stored* data() const noexcept { return reinterpret_cast<Stored*>(tiles_.data()); }
  float* scale() const noexcept { return reinterpret_cast<float*>(scale_.data()); }
  std::size_t tiles_bytes(std::size_t rows) const noexcept {
    return kernels::round_up(rows, kernels::kTile) * dims_ * sizeof(Stored);
  }
  static std::size_t scale_bytes(std::size_t rows) noexcept {
    return std::is_same_v<T, q8> ? kernels::round_up(rows, kernels::kTile) * sizeof(float) : 0;
  }

  std::size_t place(std::size_t slot, std::size_t d) const noexcept {
    return slot / kernels::kTile * kernels::kTile * dims_ + d / kPack * kernels::kTile * kPack +
           slot % kernels::kTile * kPack + d % kPack;
  }

  std::size_t head_dim_;
  std::size_t dims_;
  Block tiles_;  // [rows / 16][dims / pack][16][pack]
  Block scale_;  // q8: [rows padded to 16]
};

}  // namespace zeromerge
