// How an inference loop uses zeromerge: a tiny decoder with random weights runs beside itself, once with a
// full cache and once with an eighth of it. What concerns the cache is in forward() and main().
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "zeromerge/zeromerge.hpp"

using namespace zeromerge;
using Floats = std::vector<float>;

constexpr Geometry kModel{.layers = 2, .query_heads = 8, .kv_heads = 2, .head_dim = 32};
constexpr std::size_t kWidth = kModel.query_heads * kModel.head_dim;
constexpr std::size_t kKvWidth = kModel.kv_heads * kModel.head_dim;

Floats random_floats(std::size_t count, float deviation = 1.0f) {
  static std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, deviation);
  Floats x(count);
  for (float& y : x) y = normal(random);
  return x;
}

struct Matrix {
  std::size_t in, out;
  Floats weight = random_floats(in * out, 1.0f / std::sqrt(static_cast<float>(in)));  // [in][out]

  Floats operator()(const Floats& x) const {  // [tokens][in] to [tokens][out]
    Floats y(x.size() / in * out);
    for (std::size_t i = 0; i < x.size(); ++i)
      for (std::size_t o = 0; o < out; ++o) y[i / in * out + o] += x[i] * weight[i % in * out + o];
    return y;
  }
};

struct Layer {
  Matrix q{kWidth, kWidth}, k{kWidth, kKvWidth}, v{kWidth, kKvWidth}, o{kWidth, kWidth};
};

Floats normalised(Floats x) {  // every token to a root mean square of 1
  for (auto token = x.begin(); token != x.end(); token += kWidth) {
    const float scale = std::sqrt(kWidth / std::inner_product(token, token + kWidth, token, 0.0f));
    for (std::size_t i = 0; i < kWidth; ++i) token[i] *= scale;
  }
  return x;
}

Floats rotated(Floats x, std::size_t heads, std::size_t position) {  // RoPE; x: [tokens][heads][head_dim]
  constexpr std::size_t kDim = kModel.head_dim, kHalf = kDim / 2;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i % kDim >= kHalf) continue;
    const float frequency = std::pow(1e4f, -static_cast<float>(i % kDim) / kHalf);
    const float angle = static_cast<float>(position + i / (heads * kDim)) * frequency;
    const float a = x[i], b = x[i + kHalf];
    x[i] = a * std::cos(angle) - b * std::sin(angle);
    x[i + kHalf] = a * std::sin(angle) + b * std::cos(angle);
  }
  return x;
}

// The model for tokens [tokens][kWidth] from `position` on. Of the cache it asks one call per layer: take
// these keys, after RoPE, and values, and write the attention of these queries over all tokens so far.
template <class P>
Floats forward(const std::vector<Layer>& model, KvCache<P>& cache, Floats x, std::size_t position) {
  const std::size_t tokens = x.size() / kWidth;
  const auto view = [&](const Floats& y) {  // [tokens][heads][head_dim]; nothing is copied
    return rows(y.data(), tokens, y.size() / tokens / kModel.head_dim, kModel.head_dim);
  };
  Floats attention(x.size());
  const OutView out = out_rows(attention.data(), tokens, kModel.query_heads, kModel.head_dim);
  for (std::size_t l = 0; l < model.size(); ++l) {
    const Floats input = normalised(x), v = model[l].v(input);
    const Floats q = rotated(model[l].q(input), kModel.query_heads, position);
    const Floats k = rotated(model[l].k(input), kModel.kv_heads, position);
    if (position == 0)
      cache.layer(l).prefill(view(q), view(k), view(v), out);  // a prompt, whole or in chunks
    else
      cache.layer(l).decode(view(q), view(k), view(v), out);  // one token
    const Floats update = model[l].o(attention);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += update[i];
  }
  return normalised(x);
}

float difference(const Floats& a, const Floats& b) {  // relative: both have a root mean square of 1
  float sum = 0.0f;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<float>(a.size()));
}

int main() {
  constexpr std::size_t kPrompt = 512, kSteps = 64;
  const std::vector<Layer> model(kModel.layers);

  KvCache<ZeroMerge<>> small(kModel, {.budget = {share(0.125)}},  // of the prompt, for every kv head
                             {.executor = threads(2)});  // or your own; without one: the calling thread
  KvCache<Full<>> full(kModel, {});

  const Floats prompt = random_floats(kPrompt * kWidth);
  const float read = difference(forward(model, full, prompt, 0), forward(model, small, prompt, 0));
  small.finish_prompt();  // compresses now; the first decode would do it otherwise
  float decoded = 0.0f;
  for (std::size_t t = kPrompt; t < kPrompt + kSteps; ++t) {
    const Floats token = random_floats(kWidth);
    decoded += difference(forward(model, full, token, t), forward(model, small, token, t)) / kSteps;
  }
  std::printf("bytes: full %zu, zeromerge %zu\noutputs differ by: prompt %.2g %%, decode %.2g %%\n",
              full.bytes().held, small.bytes().held, 100.0f * read, 100.0f * decoded);
}
