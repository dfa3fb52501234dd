// What a layer holds, copied out: to compare states bit for bit and to compute attention over it in double.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "support/attention.hpp"
#include "support/sequence.hpp"

namespace zeromerge::test {

struct HeldHead {
  std::size_t size = 0;
  std::size_t bytes = 0;
  std::vector<float> key, value;         // [size][head_dim]
  std::vector<float> score, mass, bias;  // [size], or empty
  std::vector<std::uint32_t> position;   // [size]
};

template <class H>
HeldHead held(const H& head) {
  const std::size_t n = head.size();
  const std::size_t dim = head.head_dim();
  HeldHead copy{n, head.bytes(), std::vector<float>(n * dim), std::vector<float>(n * dim), {}, {}, {}, {}};
  for (std::size_t j = 0; j < n; ++j) {
    head.read_key(j, copy.key.data() + j * dim);
    head.read_value(j, copy.value.data() + j * dim);
  }
  if (head.score() != nullptr) copy.score.assign(head.score(), head.score() + n);
  if (head.mass() != nullptr) copy.mass.assign(head.mass(), head.mass() + n);
  if (head.bias() != nullptr) copy.bias.assign(head.bias(), head.bias() + n);
  if (n != 0) copy.position.assign(head.position(), head.position() + n);
  return copy;
}

struct HeldLayer {
  std::size_t tokens = 0;
  bool in_prompt = false;
  std::vector<HeldHead> heads;
};

template <class Layer>
HeldLayer held_layer(const Layer& layer, std::size_t kv_heads) {
  HeldLayer copy{layer.tokens(), layer.in_prompt(), {}};
  for (std::size_t h = 0; h < kv_heads; ++h) copy.heads.push_back(held(layer.head(h)));
  return copy;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) return false;
  return true;
}

// "" if the two hold the same bits, else what differs first. Bytes may differ: spare room depends on the
// calls.
inline std::string difference(const HeldLayer& a, const HeldLayer& b) {
  std::ostringstream text;
  if (a.tokens != b.tokens)
    text << "tokens " << a.tokens << " and " << b.tokens;
  else if (a.in_prompt != b.in_prompt)
    text << "in_prompt";
  else if (a.heads.size() != b.heads.size())
    text << "heads";
  for (std::size_t h = 0; h < a.heads.size() && text.str().empty(); ++h) {
    const HeldHead& x = a.heads[h];
    const HeldHead& y = b.heads[h];
    const char* what = x.size != y.size               ? "size"
                       : x.position != y.position     ? "position"
                       : !same_bits(x.key, y.key)     ? "key"
                       : !same_bits(x.value, y.value) ? "value"
                       : !same_bits(x.score, y.score) ? "score"
                       : !same_bits(x.mass, y.mass)   ? "mass"
                       : !same_bits(x.bias, y.bias)   ? "bias"
                                                      : nullptr;
    if (what != nullptr)
      text << what << " of head " << h << " (" << x.size << " and " << y.size << " entries)";
  }
  return text.str();
}

// Attention of query head g of `kv_head` at `token` over a head's entries, with its biases, in double.
inline Attention attention_over(const HeldHead& head, const Tokens& t, std::size_t token,
                                std::size_t query_head) {
  const std::size_t dim = t.g.head_dim;
  return attention(
      t.query(token, query_head), dim, head.size, static_cast<double>(t.g.attention_scale()),
      static_cast<double>(t.g.logit_softcap), [&](std::size_t j) { return head.key.data() + j * dim; },
      [&](std::size_t j) { return head.value.data() + j * dim; },
      [&](std::size_t j) { return head.bias.empty() ? 0.0f : head.bias[j]; });
}

// The same with one more token behind, plain: what a head looks like to the token being taken.
inline HeldHead with_token(HeldHead head, const Tokens& kept, std::size_t token, std::size_t kv_head) {
  const std::size_t dim = kept.g.head_dim;
  head.key.insert(head.key.end(), kept.key(token, kv_head), kept.key(token, kv_head) + dim);
  head.value.insert(head.value.end(), kept.value(token, kv_head), kept.value(token, kv_head) + dim);
  if (!head.score.empty()) head.score.push_back(0.0f);
  if (!head.mass.empty()) head.mass.push_back(1.0f);
  if (!head.bias.empty()) head.bias.push_back(0.0f);
  head.position.push_back(static_cast<std::uint32_t>(token));
  ++head.size;
  return head;
}

// Largest |out - expected| / (1 + |expected|) of one output row.
inline double row_error(const float* out, const Attention& expected) {
  double worst = 0.0;
  for (std::size_t d = 0; d < expected.out.size(); ++d) {
    const double error =
        std::abs(static_cast<double>(out[d]) - expected.out[d]) / (1.0 + std::abs(expected.out[d]));
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

}  // namespace zeromerge::test
