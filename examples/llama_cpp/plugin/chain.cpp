#include "chain.hpp"

#include <algorithm>
#include <cstring>

namespace zeromerge::plugin {

void Chain::append(std::size_t cell) {
  places_[cell] = static_cast<std::uint32_t>(order_.size());
  seen_[cell] = kVisible;
  order_.push_back(cell);
  end_ = std::max(end_, cell + 1);
}

void Chain::cut(std::size_t size) {
  for (; order_.size() > size; order_.pop_back()) {
    places_[order_.back()] = kNowhere;
    seen_[order_.back()] = kHidden;
  }
}

bool Chain::is(Cells past) const {
  const std::size_t shown = std::min(past.size(), seen_.size());
  if (std::memcmp(past.data(), seen_.data(), shown * sizeof past[0]) != 0) return false;
  return end_ <= shown || first_from(shown) == order_.size();
}

std::size_t Chain::common(Cells past) const {
  std::size_t n = 0;
  while (n < order_.size() && order_[n] < past.size() && past[order_[n]] == kVisible) ++n;
  return n;
}

bool Chain::ends_with(Cells past, std::size_t count) const {
  if (count >= order_.size()) return false;
  for (std::size_t i = order_.size() - count; i < order_.size(); ++i)
    if (order_[i] >= past.size() || past[order_[i]] != kVisible) return false;
  return true;
}

bool Chain::covers(Cells past) const {
  for (std::size_t cell = 0; cell < past.size(); ++cell)
    if (past[cell] == kVisible && !contains(cell)) return false;
  return true;
}

std::size_t Chain::first_from(std::size_t cell) const {
  const auto at = std::find_if(order_.begin(), order_.end(), [cell](std::size_t c) { return c >= cell; });
  return static_cast<std::size_t>(at - order_.begin());
}

}  // namespace zeromerge::plugin
