// Values of one head row by row (kernels/layout.hpp): f32, f16, bf16, and q8 with a scale per entry.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "zeromerge/kernels/kernels.hpp"
#include "zeromerge/memory/block.hpp"

namespace zeromerge {

// The same calls as Keys.
template <class T>
class Values {
 public:
  using View = kernels::ValueRows<T>;

  Values(std::size_t head_dim, ByteLedger* ledger, StorageType = storage_of<T>)
      : head_dim_(head_dim),
        row_size_(kernels::round_up(head_dim, kernels::kTile)),
        rows_(ledger),
        scale_(ledger) {}

  std::size_t bytes() const noexcept { return rows_.bytes() + scale_.bytes(); }
  std::size_t bytes_for(std::size_t, std::size_t rows, std::size_t, Block::Sizing sized) const noexcept {
    return sized(rows_bytes(rows)) + sized(scale_bytes(rows));
  }
  View view() const noexcept { return {data(), row_size_, scale()}; }
  template <class F>
  decltype(auto) visit(const F& f) const {
    return f(view());
  }

  void resize(std::size_t rows) {
    scale_.resize(scale_bytes(rows));
    rows_.resize(rows_bytes(rows));
  }
  static std::size_t exact_from() noexcept { return 0; }  // see PackedRows
  bool packs_late() const noexcept { return false; }
  void settle(std::size_t, std::size_t rows, std::size_t) { resize(rows); }
  void make_room(std::size_t rows, std::size_t, std::size_t, bool) { resize(rows); }
  static constexpr bool lacks(std::size_t, std::size_t, std::size_t) noexcept { return false; }
  static constexpr bool spares(std::size_t, std::size_t, std::size_t) noexcept { return false; }
  static constexpr std::size_t plain_from() noexcept { return 0; }
  void pack(std::size_t, std::size_t) noexcept {}

  void read(std::size_t slot, float* out) const noexcept {
    if constexpr (kPack == 1) {
      kernels::widen(data() + slot * row_size_, head_dim_, 1.0f, out);
    } else {
      Stored row[kMaxHeadDim];
      for (std::size_t d = 0; d < head_dim_; ++d) row[d] = data()[place(slot, d)];
      if constexpr (std::is_same_v<T, q8>)
        kernels::decode_q8(row, head_dim_, scale()[slot], out);
      else
        kernels::widen(row, head_dim_, 1.0f, out);
    }
  }

  // This slot is about to be written: its lines are fetched meanwhile.
  void expect(std::size_t slot) const noexcept {
    if (data() == nullptr) return;
    const char* row = reinterpret_cast<const char*>(data() + slot / kPack * kPack * row_size_);
    for (std::size_t i = 0; i < kPack * row_size_ * sizeof(Stored); i += 64) __builtin_prefetch(row + i, 1);
  }

  void write(std::size_t slot, const float* v) noexcept {
    Stored row[kMaxHeadDim];
    if constexpr (std::is_same_v<T, q8>) {
      scale()[slot] = kernels::encode_q8(v, head_dim_, row);
      std::fill(row + head_dim_, row + row_size_, kernels::kZeroQ8);
    } else {
      kernels::narrow(v, head_dim_, row);
      std::fill(row + head_dim_, row + row_size_, from_f32<T>(0.0f));
    }
    for (std::size_t d = 0; d < row_size_; ++d) data()[place(slot, d)] = row[d];
  }

  // One element, where rows are stored as plain numbers.
  float at(std::size_t slot, std::size_t d) const noexcept { return to_f32(data()[place(slot, d)]); }

  // As it is stored, bit for bit.
  void copy(const Values& other, std::size_t from, std::size_t to) noexcept {
    if constexpr (kPack == 1)
      std::copy_n(other.data() + from * row_size_, row_size_, data() + to * row_size_);
    else
      for (std::size_t d = 0; d < row_size_; ++d) data()[place(to, d)] = other.data()[place(from, d)];
    if constexpr (std::is_same_v<T, q8>) scale()[to] = other.scale()[from];
  }

  void exchange(std::size_t a, std::size_t b) noexcept {
    for (std::size_t d = 0; d < row_size_; ++d) std::swap(data()[place(a, d)], data()[place(b, d)]);
    if constexpr (std::is_same_v<T, q8>) std::swap(scale()[a], scale()[b]);
  }

  std::size_t image_bytes() const noexcept {
    return row_size_ * sizeof(Stored) + (std::is_same_v<T, q8> ? sizeof(float) : 0);
  }
  void save(std::size_t slot, char* to) const noexcept {
    Stored row[kMaxHeadDim];
    for (std::size_t d = 0; d < row_size_; ++d) row[d] = data()[place(slot, d)];
    std::memcpy(to, row, row_size_ * sizeof(Stored));
    if constexpr (std::is_same_v<T, q8>)
      std::memcpy(to + row_size_ * sizeof(Stored), scale() + slot, sizeof(float));
  }
  void restore(std::size_t slot, const char* from) noexcept {
    Stored row[kMaxHeadDim];
    std::memcpy(row, from, row_size_ * sizeof(Stored));
    for (std::size_t d = 0; d < row_size_; ++d) data()[place(slot, d)] = row[d];
    if constexpr (std::is_same_v<T, q8>)
      std::memcpy(scale() + slot, from + row_size_ * sizeof(Stored), sizeof(float));
  }
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
    rows_.resize(0);
    scale_.resize(0);
  }
  void count_in(ByteLedger* ledger) noexcept {
    rows_.count_in(ledger);
    scale_.count_in(ledger);
  }
  void swap(Values& other) noexcept {
    rows_.swap(other.rows_);
    scale_.swap(other.scale_);
  }

 private:
  using Stored = kernels::stored<T>;
  static constexpr std::size_t kPack = kernels::pack_of<T>;
  Stored* data() const noexcept { return reinterpret_cast<Stored*>(rows_.data()); }
  float* scale() const noexcept { return reinterpret_cast<float*>(scale_.data()); }
  std::size_t rows_bytes(std::size_t rows) const noexcept {
    return kernels::round_up(rows, kPack) * row_size_ * sizeof(Stored);
  }
  static std::size_t scale_bytes(std::size_t rows) noexcept {
    return std::is_same_v<T, q8> ? kernels::round_up(rows, kernels::kTile) * sizeof(float) : 0;
  }
  std::size_t place(std::size_t slot, std::size_t d) const noexcept {
    return slot / kPack * kPack * row_size_ + d * kPack + slot % kPack;
  }

  std::size_t head_dim_;
  std::size_t row_size_;
  Block rows_;   // [rows / pack][row_size][pack]
  Block scale_;  // q8: [rows padded to 16]
};

}  // namespace zeromerge
