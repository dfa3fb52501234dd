// A sequence as the engine's cells show it: the cells of its tokens, in their order. A row of a mask that
// shows exactly these cells continues it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace zeromerge::plugin {

inline constexpr std::uint16_t kVisible = 0;      // +0 in f16: a mask's value for a cell that a row sees
inline constexpr std::uint16_t kHidden = 0xfc00;  // -infinity

// What a row sees of a stream's cells: [cells in view] kVisible or kHidden.
using Cells = std::span<const std::uint16_t>;

class Chain {
 public:
  // Of a stream of so many cells.
  explicit Chain(std::size_t cells) : places_(cells, kNowhere), seen_(cells, kHidden) {}

  std::size_t size() const noexcept { return order_.size(); }
  const std::vector<std::size_t>& order() const noexcept { return order_; }
  bool contains(std::size_t cell) const noexcept { return cell < seen_.size() && seen_[cell] == kVisible; }
  // How many tokens stand before this cell's, which must be contained.
  std::size_t place(std::size_t cell) const noexcept { return places_[cell]; }

  void append(std::size_t cell);
  // Forgets all but the first `size`.
  void cut(std::size_t size);

  // Whether `past` shows these cells and no other.
  bool is(Cells past) const;
  // How many of the oldest tokens are all in `past`.
  std::size_t common(Cells past) const;
  // Whether `past`, which shows `count` cells, shows the newest `count` of these, and not all.
  bool ends_with(Cells past, std::size_t count) const;
  // Whether all cells that `past` shows are among these.
  bool covers(Cells past) const;
  // The oldest token whose cell lies at `cell` or behind it; size() if there is none.
  std::size_t first_from(std::size_t cell) const;

 private:
  static constexpr std::uint32_t kNowhere = 0xffffffff;
  std::vector<std::size_t> order_;
  std::vector<std::uint32_t> places_;  // [cells] in order_, or kNowhere
  std::vector<std::uint16_t> seen_;    // [cells] as a mask would show them
  std::size_t end_ = 0;                // behind the highest cell that was ever among them
};

}  // namespace zeromerge::plugin
