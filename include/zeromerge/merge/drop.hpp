// Entries that leave are gone.
#pragma once

#include <cstddef>
#include <span>

namespace zeromerge {

struct DropMerge {
  bool keeps_mass() const noexcept { return false; }
  std::size_t residuals(std::size_t) const noexcept { return 0; }
  template <class H, class S>
  void fold(H&, std::size_t, std::size_t, std::size_t, const S&) const noexcept {}
  template <class H, class S>
  void fold_group(const H&, std::span<const std::size_t>, H&, std::size_t, const S&) const noexcept {}
};

}  // namespace zeromerge
