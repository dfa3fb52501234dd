// Rows whose stored type is chosen at run time: one choice per call, never per element.
#pragma once

#include <cstddef>
#include <type_traits>
#include <variant>

#include "zeromerge/storage/keys.hpp"
#include "zeromerge/storage/packed_rows.hpp"
#include "zeromerge/storage/values.hpp"

namespace zeromerge {

// In place of a stored type: any of them, by StorageType.
struct any_storage {};
template <>
inline constexpr StorageType storage_of<any_storage> = StorageType::f16;  // unless told otherwise

namespace detail {

template <template <class> class Rows>
class AnyRows {
 public:
  AnyRows(std::size_t head_dim, ByteLedger* ledger, StorageType type) : rows_(make(head_dim, ledger, type)) {}

  std::size_t bytes() const noexcept {
    return std::visit([](const auto& r) { return r.bytes(); }, rows_);
  }
  std::size_t bytes_for(std::size_t size, std::size_t rows, std::size_t loose,
                        Block::Sizing sized) const noexcept {
    return std::visit([=](const auto& r) { return r.bytes_for(size, rows, loose, sized); }, rows_);
  }
  template <class F>
  decltype(auto) visit(const F& f) const {
    return std::visit([&](const auto& r) { return f(r.view()); }, rows_);
  }
  void resize(std::size_t rows) {
    std::visit([&](auto& r) { r.resize(rows); }, rows_);
  }
  std::size_t exact_from() const noexcept {
    return std::visit([](const auto& r) { return r.exact_from(); }, rows_);
  }
  bool packs_late() const noexcept {
    return std::visit([](const auto& r) { return r.packs_late(); }, rows_);
  }
  void make_room(std::size_t rows, std::size_t loose, std::size_t later, bool tight) {
    std::visit([&](auto& r) { r.make_room(rows, loose, later, tight); }, rows_);
  }
  bool lacks(std::size_t rows, std::size_t loose, std::size_t later) const noexcept {
    return std::visit([=](const auto& r) { return r.lacks(rows, loose, later); }, rows_);
  }
  bool spares(std::size_t rows, std::size_t loose, std::size_t later) const noexcept {
    return std::visit([=](const auto& r) { return r.spares(rows, loose, later); }, rows_);
  }
  std::size_t plain_from() const noexcept {
    return std::visit([](const auto& r) { return r.plain_from(); }, rows_);
  }
  void settle(std::size_t size, std::size_t rows, std::size_t loose) {
    std::visit([&](auto& r) { r.settle(size, rows, loose); }, rows_);
  }
  void pack(std::size_t size, std::size_t loose) noexcept {
    std::visit([&](auto& r) { r.pack(size, loose); }, rows_);
  }
  void read(std::size_t slot, float* out) const noexcept {
    std::visit([&](const auto& r) { r.read(slot, out); }, rows_);
  }
  void expect(std::size_t slot) const noexcept {
    std::visit([&](const auto& r) { r.expect(slot); }, rows_);
  }
  void write(std::size_t slot, const float* row) noexcept {
    std::visit([&](auto& r) { r.write(slot, row); }, rows_);
  }
  void copy(const AnyRows& other, std::size_t from, std::size_t to) noexcept {
    std::visit([&](auto& r) { r.copy(same(r, other), from, to); }, rows_);
  }
  void exchange(std::size_t a, std::size_t b) noexcept {
    std::visit([&](auto& r) { r.exchange(a, b); }, rows_);
  }
  std::size_t image_bytes() const noexcept {
    return std::visit([](const auto& r) { return r.image_bytes(); }, rows_);
  }
  template <class Write>
  std::size_t record(std::size_t slot, char* to, const Write& write) noexcept {
    return std::visit([&](auto& r) { return r.record(slot, to, [&](auto&) { write(*this); }); }, rows_);
  }
  void restore(std::size_t slot, const char* from) noexcept {
    std::visit([&](auto& r) { r.restore(slot, from); }, rows_);
  }
  std::size_t usual_image_bytes() const noexcept {
    return std::visit([](const auto& r) { return r.usual_image_bytes(); }, rows_);
  }
  std::size_t most_cut_bytes(std::size_t rows) const noexcept {
    return std::visit([=](const auto& r) { return r.most_cut_bytes(rows); }, rows_);
  }
  std::size_t pack_image_bytes(std::size_t size, std::size_t loose) const noexcept {
    return std::visit([=](const auto& r) { return r.pack_image_bytes(size, loose); }, rows_);
  }
  void save_pack(std::size_t size, std::size_t loose, char* to) const noexcept {
    std::visit([&](const auto& r) { r.save_pack(size, loose, to); }, rows_);
  }
  void restore_pack(std::size_t size, const char* from) noexcept {
    std::visit([&](auto& r) { r.restore_pack(size, from); }, rows_);
  }
  std::size_t cut_image_bytes(std::size_t size) const noexcept {
    return std::visit([=](const auto& r) { return r.cut_image_bytes(size); }, rows_);
  }
  void save_cut(std::size_t size, char* to) const noexcept {
    std::visit([&](const auto& r) { r.save_cut(size, to); }, rows_);
  }
  void restore_cut(std::size_t size, const char* from) noexcept {
    std::visit([&](auto& r) { r.restore_cut(size, from); }, rows_);
  }
  void truncate(std::size_t size) noexcept {
    std::visit([&](auto& r) { r.truncate(size); }, rows_);
  }
  void shrink(std::size_t size) {
    std::visit([&](auto& r) { r.shrink(size); }, rows_);
  }
  void cut(std::size_t size) noexcept {
    std::visit([&](auto& r) { r.cut(size); }, rows_);
  }
  void clear() noexcept {
    std::visit([](auto& r) { r.clear(); }, rows_);
  }
  void count_in(ByteLedger* ledger) noexcept {
    std::visit([=](auto& r) { r.count_in(ledger); }, rows_);
  }
  void swap(AnyRows& other) noexcept { rows_.swap(other.rows_); }

 private:
  using Variant = std::variant<Rows<float>, Rows<f16>, Rows<bf16>, Rows<q8>, Rows<q4>>;

  static Variant make(std::size_t head_dim, ByteLedger* ledger, StorageType type) {
    switch (type) {
      case StorageType::f32:
        return Rows<float>(head_dim, ledger);
      case StorageType::bf16:
        return Rows<bf16>(head_dim, ledger);
      case StorageType::q8:
        return Rows<q8>(head_dim, ledger);
      case StorageType::q4:
        return Rows<q4>(head_dim, ledger);
      default:
        return Rows<f16>(head_dim, ledger);
    }
  }
  // The heads of a cache store alike.
  template <class R>
  static const R& same(const R&, const AnyRows& other) noexcept {
    return *std::get_if<R>(&other.rows_);
  }

  Variant rows_;
};

}  // namespace detail

template <>
class Keys<any_storage> : public detail::AnyRows<Keys> {
 public:
  using AnyRows::AnyRows;
};
template <>
class Values<any_storage> : public detail::AnyRows<Values> {
 public:
  using AnyRows::AnyRows;
};

}  // namespace zeromerge
