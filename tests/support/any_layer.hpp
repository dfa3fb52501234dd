// What a layer of a cache chosen by text holds, bit for bit, for comparison; and calls of several tokens.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "support/sequence.hpp"

namespace zeromerge::test {

inline CacheOptions with_rope(const Geometry& g, Executor executor = serial()) {
  CacheOptions options{.executor = std::move(executor)};
  options.rope = std::make_shared<Rope>(RopeParams{.dims = g.head_dim}, g.head_dim);
  return options;
}

// Tokens [first, first + n) in one call; their attention.
template <class Layer>
std::vector<float> decode_rows(Layer& layer, const Tokens& t, std::size_t first, std::size_t n) {
  std::vector<float> out(n * t.g.query_heads * t.g.head_dim);
  layer.decode(t.queries(first, n), t.keys(first, n), t.values(first, n),
               out_rows(out.data(), n, t.g.query_heads, t.g.head_dim));
  return out;
}

struct EntryBits {
  std::vector<std::uint32_t> rows;  // key and value, [2][head_dim]
  std::uint32_t position, mass, score;
};
struct HeadBits {
  HeadState state;
  std::vector<EntryBits> entries;
};

inline std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }

inline HeadBits head_bits(const AnyLayer& layer, std::size_t head, std::size_t head_dim) {
  HeadBits all{layer.state(head), {}};
  std::vector<float> row(2 * head_dim);
  for (std::size_t j = 0; j < layer.entries(head); ++j) {
    layer.read_key(head, j, row.data());
    layer.read_value(head, j, row.data() + head_dim);
    EntryBits e{{},
                static_cast<std::uint32_t>(layer.position(head, j)),
                bits_of(layer.mass(head, j)),
                bits_of(layer.score(head, j))};
    for (const float x : row) e.rows.push_back(bits_of(x));
    all.entries.push_back(std::move(e));
  }
  return all;
}

inline std::vector<HeadBits> layer_bits(const AnyLayer& layer, const Geometry& g) {
  std::vector<HeadBits> all;
  for (std::size_t h = 0; h < g.kv_heads; ++h) all.push_back(head_bits(layer, h, g.head_dim));
  return all;
}

inline bool same_state(const HeadState& a, const HeadState& b) {
  const Division &x = a.division, &y = b.division;
  return x.capacity == y.capacity && x.sinks == y.sinks && x.residual == y.residual && x.recent == y.recent &&
         x.slack == y.slack && x.by_prompt == y.by_prompt && x.precise == y.precise && x.mean == y.mean &&
         x.by_mean == y.by_mean && a.residuals == b.residuals && a.rated == b.rated &&
         a.held_sum == b.held_sum && a.ring_next == b.ring_next && a.ring == b.ring;
}

// "" if the two hold the same bits, else what differs first. scores: they are compared too.
inline std::string difference(const std::vector<HeadBits>& a, const std::vector<HeadBits>& b,
                              bool scores = true) {
  std::ostringstream text;
  for (std::size_t h = 0; h < a.size(); ++h) {
    text << "head " << h << ": ";
    if (a[h].entries.size() != b[h].entries.size()) {
      text << a[h].entries.size() << " and " << b[h].entries.size() << " entries";
      return text.str();
    }
    if (!same_state(a[h].state, b[h].state)) return text.str() + "state";
    for (std::size_t j = 0; j < a[h].entries.size(); ++j) {
      const EntryBits &x = a[h].entries[j], &y = b[h].entries[j];
      const char* what = x.position != y.position       ? "position"
                         : x.rows != y.rows             ? "rows"
                         : x.mass != y.mass             ? "mass"
                         : scores && x.score != y.score ? "score"
                                                        : nullptr;
      if (what == nullptr) continue;
      text << what << " of slot " << j << " of " << a[h].entries.size();
      return text.str();
    }
    text.str("");
  }
  return "";
}

}  // namespace zeromerge::test
