// A prompt's attention, its log-sum-exp and what its columns add to the scores, against the textbook in
// double.
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "support/attention.hpp"
#include "support/device_heads.hpp"
#include "zeromerge/cuda/launches.hpp"

namespace zeromerge::test {
namespace {

struct PromptProblem {
  const char* name;
  std::size_t group;
  std::size_t head_dim;
  std::size_t tokens;
  std::vector<std::size_t> before;  // [kv_heads] entries that the heads held, ragged
  float softcap = 0.0f;
  bool sinks = false;
  bool fields = true;
  std::size_t counting = 0;  // tokens that count for the scores; 0: all
  float decay = 1.0f;
};

std::vector<PromptProblem> prompt_problems() {
  return {{"OneToken", 1, 64, 1, {0}},
          {"OneTokenBehindOthers", 2, 64, 1, {70, 3}},
          {"ATileOfRows", 1, 64, 64, {0}},
          {"ATileAndOneMore", 1, 64, 65, {0, 1}},
          {"GroupOfThree", 3, 64, 50, {20}},
          {"GroupOfEight", 8, 128, 20, {100}},
          {"WideHeads", 2, 256, 40, {10}},
          {"HeadsThatFillNoChunk", 2, 69, 40, {10}},
          {"NoFields", 2, 64, 40, {10}, 0.0f, false, false},
          {"Softcap", 2, 64, 40, {10}, 5.0f},
          {"SinkLogits", 3, 64, 40, {10, 0}, 0.0f, true},
          {"DecayedTail", 3, 64, 90, {0, 37}, 0.0f, false, true, 33, 0.9f}};
}

struct PromptRun {
  const PromptProblem& p;
  std::size_t kv_heads, query_heads;
  std::vector<PlainHead> heads;
  std::vector<float> q, sinks;
  double scale;

  explicit PromptRun(const PromptProblem& problem)
      : p(problem),
        kv_heads(p.before.size()),
        query_heads(kv_heads * p.group),
        scale(1.0 / std::sqrt(static_cast<double>(p.head_dim))) {
    Random random(11);
    for (const std::size_t before : p.before)
      heads.push_back(random_head(random, before + p.tokens, p.head_dim, p.fields));
    q = normals(random, p.tokens * query_heads * p.head_dim, 1.5);
    if (p.sinks) sinks = normals(random, query_heads);
  }

  // What kernels and textbook both see: rows as they are stored.
  Attention expected(const std::vector<PlainHead>& stored, std::size_t token, std::size_t head) const {
    const PlainHead& h = stored[head / p.group];
    const std::size_t seen = p.before[head / p.group] + token + 1;
    Attention a = attention(
        q.data() + (token * query_heads + head) * p.head_dim, p.head_dim, seen, scale,
        static_cast<double>(p.softcap), [&](std::size_t j) { return h.keys[j].data(); },
        [&](std::size_t j) { return h.values[j].data(); },
        [&](std::size_t j) { return h.bias.empty() ? 0.0f : h.bias[j]; });
    if (sinks.empty()) return a;
    const double share = 1.0 / (1.0 + std::exp(static_cast<double>(sinks[head]) - a.lse));
    for (double& x : a.out) x *= share;
    for (double& x : a.probability) x *= share;
    a.lse -= std::log(share);
    return a;
  }
};

template <class T>
class PromptAttention : public DeviceTest {};
using Stored =
    testing::Types<std::pair<f16, f16>, std::pair<bf16, bf16>, std::pair<q8, q8>, std::pair<f16, q8>>;
TYPED_TEST_SUITE(PromptAttention, Stored);

TYPED_TEST(PromptAttention, AndItsColumnsAgreeWithTheTextbook) {
  using K = typename TypeParam::first_type;
  using V = typename TypeParam::second_type;
  for (const PromptProblem& p : prompt_problems()) {
    SCOPED_TRACE(p.name);
    const PromptRun run(p);
    const DeviceHeads<K, V> device(run.heads, p.head_dim, p.fields, p.fields, 0);
    const std::vector<PlainHead> stored = device.read();
    const auto u32 = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
    const cuda::PromptHeads view = {device.rows(), device.states(), u32(run.kv_heads), u32(p.group),
                                    u32(p.head_dim)};
    const auto q = uploaded(run.q);
    const auto sinks = uploaded(run.sinks);
    const cuda::Buffer<float> out(p.tokens * run.query_heads * p.head_dim), lse(p.tokens * run.query_heads);
    const float scale = static_cast<float>(run.scale) * cuda::kLog2E;
    std::size_t largest = 0;
    for (const PlainHead& h : run.heads) largest = std::max(largest, h.size());
    const cuda::PromptExtent extent = {u32(p.tokens * p.group), u32(largest)};
    using Launch = cuda::detail::PromptLaunches<K, V>;
    Launch::attend({view, q.data(), out.data(), lse.data(), sinks.data(), Element::f32, Element::f32,
                    u32(p.tokens), scale, p.softcap},
                   extent, {});
    const std::size_t counting = p.counting == 0 ? p.tokens : p.counting;
    if (p.fields)
      Launch::columns({view, q.data(), lse.data(), nullptr, 0, Element::f32, u32(p.tokens), u32(counting),
                       scale, p.softcap, std::log2(p.decay), 0.5f, 0.75f},
                      extent, {});

    const auto outs = downloaded(out);
    const auto sums = downloaded(lse);
    std::vector<std::vector<double>> scores;
    for (const PlainHead& h : stored) scores.emplace_back(h.score.begin(), h.score.end());
    for (auto& head : scores)
      for (double& s : head) s *= 0.75;
    for (std::size_t t = 0; t < p.tokens; ++t)
      for (std::size_t h = 0; h < run.query_heads; ++h) {
        const Attention a = run.expected(stored, t, h);
        const std::size_t row = t * run.query_heads + h;
        EXPECT_NEAR(sums[row], a.lse, 1e-4) << "token " << t << " head " << h;
        for (std::size_t d = 0; d < p.head_dim; ++d)
          ASSERT_NEAR(outs[row * p.head_dim + d], a.out[d], 1e-4)
              << "token " << t << " head " << h << " channel " << d;
        if (!p.fields || t + counting < p.tokens) continue;
        const double weight =
            0.5 * std::pow(static_cast<double>(p.decay), static_cast<double>(p.tokens - 1 - t));
        for (std::size_t j = 0; j < a.probability.size(); ++j)
          scores[h / p.group][j] += weight * a.probability[j];
      }
    if (!p.fields) continue;
    const std::vector<PlainHead> after = device.read();
    for (std::size_t h = 0; h < run.kv_heads; ++h)
      for (std::size_t j = 0; j < scores[h].size(); ++j)
        ASSERT_NEAR(after[h].score[j], scores[h][j], 1e-4 * (scores[h][j] + 0.01))
            << "head " << h << " entry " << j;
  }
}

}  // namespace
}  // namespace zeromerge::test
