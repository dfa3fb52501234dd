// Device memory of one layer's heads of one sequence: one allocation, heads one after another, each with just
// the entries of its own.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/cuda/counted.hpp"
#include "zeromerge/kernels/cuda/layout.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge::cuda {

// Bytes of a row, and whether a scale goes with it.
struct RowForm {
  std::size_t bytes;
  bool scaled;
};
inline RowForm row_form(StorageType type, std::size_t head_dim) {
  const auto dim = static_cast<std::uint32_t>(head_dim);
  return type == StorageType::q8 ? RowForm{row_bytes<q8>(dim), true} : RowForm{row_bytes<f16>(dim), false};
}

// What every head of a cache has.
struct SlabForm {
  RowForm keys, values;
  EntryFields fields;
};

class Slab {
 public:
  Slab() = default;
  Slab(const SlabForm& form, std::span<const std::size_t> rooms, ByteLedger* ledger) : form_(form) {
    std::size_t bytes = 0;
    for (const std::size_t room : rooms) (void)carve(form, room, nullptr, bytes);
    memory_ = CountedMemory(bytes, ledger);
    set_heads(rooms);
  }

  // The same bytes in other memory, when the stream has come so far.
  Slab copy(Stream stream) const {
    std::vector<std::size_t> rooms;
    for (const HeadRows& head : heads_) rooms.push_back(head.room);
    Slab other;
    other.form_ = form_;
    other.memory_ = memory_.copy(stream);
    other.set_heads(rooms);
    return other;
  }

  std::span<const HeadRows> heads() const noexcept { return heads_; }
  std::size_t bytes() const noexcept { return memory_.bytes(); }

 private:
  void set_heads(std::span<const std::size_t> rooms) {
    std::size_t at = 0;
    for (const std::size_t room : rooms) heads_.push_back(carve(form_, room, memory_.data(), at));
  }

  // One head's arrays from byte `at` on, each aligned to 16 bytes.
  static HeadRows carve(const SlabForm& form, std::size_t room, unsigned char* base, std::size_t& at) {
    const auto take = [&](std::size_t each, bool wanted) -> void* {
      if (!wanted) return nullptr;
      unsigned char* p = base == nullptr ? nullptr : base + at;
      at += (room * each + 15) / 16 * 16;
      return p;
    };
    const auto floats = [&](bool wanted) { return static_cast<float*>(take(sizeof(float), wanted)); };
    HeadRows head{};
    head.keys = take(form.keys.bytes, true);
    head.values = take(form.values.bytes, true);
    head.key_scale = floats(form.keys.scaled);
    head.value_scale = floats(form.values.scaled);
    head.score = floats(form.fields.score);
    head.mass = floats(form.fields.mass);
    head.bias = floats(form.fields.mass);
    head.position = static_cast<std::uint32_t*>(take(sizeof(std::uint32_t), true));
    head.room = static_cast<std::uint32_t>(room);
    return head;
  }

  SlabForm form_{};
  CountedMemory memory_;
  std::vector<HeadRows> heads_;
};

}  // namespace zeromerge::cuda
