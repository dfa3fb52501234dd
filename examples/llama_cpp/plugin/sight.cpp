#include "sight.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace zeromerge::plugin {

namespace {

constexpr std::uint16_t kVisible = 0;      // +0 in f16
constexpr std::uint16_t kHidden = 0xfc00;  // -infinity

const std::uint16_t* row_of(const ggml_tensor* mask, std::size_t stream, std::size_t token) {
  const std::size_t s = mask->ne[3] > 1 ? stream : 0;
  return reinterpret_cast<const std::uint16_t*>(static_cast<const char*>(mask->data) + s * mask->nb[3] +
                                                token * mask->nb[1]);
}

bool rows_are_causal(const ggml_tensor* mask, std::size_t stream, std::size_t tokens,
                     const std::vector<std::size_t>& written) {
  const auto cells = static_cast<std::size_t>(mask->ne[0]);
  if (written.size() != tokens) return false;
  const std::uint16_t* row = row_of(mask, stream, 0);
  std::size_t others = 0;  // counted without a way out, which compilers do many at a time
  for (std::size_t cell = 0; cell < cells; ++cell)
    others += row[cell] != kVisible && row[cell] != kHidden ? 1 : 0;
  if (others != 0 || written[0] >= cells || row[written[0]] != kVisible) return false;
  if (tokens == 1) return true;
  std::vector<std::uint16_t> expected(row, row + cells);
  for (std::size_t t = 1; t < tokens; ++t) {
    if (written[t] >= cells || expected[written[t]] == kVisible) return false;
    expected[written[t]] = kVisible;
    if (std::memcmp(expected.data(), row_of(mask, stream, t), cells * sizeof(std::uint16_t)) != 0)
      return false;
  }
  return true;
}

}  // namespace

Sight read_sight(const ggml_tensor* mask, std::size_t stream, std::size_t tokens,
                 std::vector<std::size_t> written) {
  Sight sight;
  sight.mask = mask;
  sight.causal = rows_are_causal(mask, stream, tokens, written);
  sight.written = std::move(written);
  if (!sight.causal) return sight;
  const std::uint16_t* row = row_of(mask, stream, 0);
  sight.past.reserve(static_cast<std::size_t>(mask->ne[0]));
  for (std::size_t cell = 0; cell < static_cast<std::size_t>(mask->ne[0]); ++cell)
    if (row[cell] == kVisible && cell != sight.written[0]) sight.past.push_back(cell);
  return sight;
}

bool continues(const Sight& last, const Sight& next) {
  if (!last.causal || !next.causal || next.past.size() != last.past.size() + last.written.size())
    return false;
  std::vector<std::size_t> written = last.written;
  std::sort(written.begin(), written.end());
  auto old = last.past.begin();
  auto fresh = written.begin();
  for (const std::size_t cell : next.past) {
    if (old != last.past.end() && *old == cell)
      ++old;
    else if (fresh != written.end() && *fresh == cell)
      ++fresh;
    else
      return false;
  }
  return true;
}

}  // namespace zeromerge::plugin
