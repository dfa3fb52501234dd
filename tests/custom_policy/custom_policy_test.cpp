// Scores of a user's own, in headers outside the library, composed with its budgets and merges.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "custom_policy/ageing_attention.hpp"
#include "custom_policy/value_window.hpp"
#include "support/attention.hpp"
#include "support/sequence.hpp"
#include "zeromerge/cache/cache.hpp"

namespace zeromerge {
namespace {

using test::Tokens;
using Positions = std::vector<std::size_t>;
using Reals = std::vector<double>;

constexpr std::size_t kPrompt = 120, kDim = 16, kBudget = 40, kSinks = 4, kRecent = 12, kWindow = 16;
const Geometry kGeometry{.query_heads = 6, .kv_heads = 2, .head_dim = kDim};

template <class B, class M, class K = float>
Policy<AgeingAttention, B, M, K, K, ValueWindow> composed(B budget, M merge) {
  Policy<AgeingAttention, B, M, K, K, ValueWindow> policy{.budget = budget, .merge = merge};
  policy.areas.recent = count(kRecent);
  policy.areas.sinks = kSinks;
  policy.prompt_score.window = kWindow;
  policy.prompt_share = 0.5;
  return policy;
}

// One head in plain loops: who is held, and the attention that each has got.
class PlainHead {
 public:
  PlainHead(const Tokens& t, std::size_t h) : t_(t), h_(h) {}

  const Positions& positions() const { return held_; }

  void take(std::size_t token) {
    held_.push_back(token);
    sum_.push_back(0.0);
    window_.push_back(0.0);
    for (std::size_t g = h_ * 3; g < h_ * 3 + 3; ++g) {
      const auto a = test::attention(
          t_.query(token, g), kDim, held_.size(), 0.25, 0.0,
          [&](std::size_t j) { return t_.key(held_[j], h_); },
          [&](std::size_t j) { return t_.value(held_[j], h_); }, [](std::size_t) { return 0.0; });
      for (std::size_t j = 0; j < held_.size(); ++j) {
        sum_[j] += a.probability[j];
        if (token >= kPrompt - kWindow) window_[j] += a.probability[j];
      }
    }
  }

  // The first and last, half of the others by the running score, then half by the window and |v|.
  void end_prompt() {
    Reals running(kPrompt), valued(kPrompt);
    for (std::size_t j = 0; j < kPrompt; ++j) {
      double square = 0.0;
      for (std::size_t d = 0; d < kDim; ++d) square += std::pow(static_cast<double>(t_.value(j, h_)[d]), 2.0);
      running[j] = sum_[j] / std::sqrt(static_cast<double>(kPrompt - j));
      valued[j] = window_[j] * std::sqrt(square);
    }
    std::vector<char> stays(kPrompt, 0);
    for (std::size_t j = 0; j < kPrompt; ++j) stays[j] = j < kSinks || j >= kPrompt - kRecent;
    for (const Reals* value : {&running, &valued})
      for (std::size_t i = 0; i < (kBudget - kSinks - kRecent) / 2; ++i) {
        std::size_t best = kPrompt;
        for (std::size_t j = 0; j < kPrompt; ++j)
          if (!stays[j] && (best == kPrompt || (*value)[j] > (*value)[best])) best = j;
        stays[best] = 1;
      }
    for (std::size_t j = kPrompt; j-- > 0;)
      if (!stays[j]) leave(j);
  }

  void decode(std::size_t token) {
    take(token);
    const auto worth = [&](std::size_t j) {
      return sum_[j] / std::sqrt(static_cast<double>(token + 1 - held_[j]));
    };
    std::size_t victim = kSinks;
    for (std::size_t j = kSinks; j < held_.size() - kRecent; ++j)
      if (worth(j) < worth(victim)) victim = j;
    leave(victim);
  }

 private:
  void leave(std::size_t j) {
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(j));
    sum_.erase(sum_.begin() + static_cast<std::ptrdiff_t>(j));
    window_.erase(window_.begin() + static_cast<std::ptrdiff_t>(j));
  }
  const Tokens& t_;
  std::size_t h_;
  Positions held_;
  Reals sum_, window_;
};

template <class Layer>
Positions held(const Layer& layer, std::size_t h) {
  const auto& head = layer.head(h);
  Positions p(head.position(), head.position() + head.size());
  std::sort(p.begin(), p.end());
  return p;
}

TEST(CustomPolicy, KeepsWhatItsScoresSay) {
  const Tokens t(kGeometry, kPrompt + 60, 1);
  KvCache cache(kGeometry, composed(UniformBudget{count(kBudget)}, DropMerge{}));
  auto& layer = cache.layer(0);
  std::vector<PlainHead> expected = {{t, 0}, {t, 1}};
  (void)test::prefill(layer, t, 0, 70);
  (void)test::prefill(layer, t, 70, kPrompt - 70);
  cache.finish_prompt();
  for (PlainHead& head : expected) {
    for (std::size_t token = 0; token < kPrompt; ++token) head.take(token);
    head.end_prompt();
  }
  for (std::size_t token = kPrompt;; ++token) {
    for (std::size_t h = 0; h < 2; ++h)
      ASSERT_EQ(held(layer, h), expected[h].positions()) << "head " << h << " token " << token;
    if (token == t.count) break;
    (void)test::decode(layer, t, token);
    for (PlainHead& head : expected) head.decode(token);
  }
}

TEST(CustomPolicy, GoesWithEveryBudgetMergeAndStorage) {
  Geometry g = kGeometry;
  g.layers = 3;
  const auto expect_total = [&](auto policy) {
    KvCache cache(g, policy);
    for (std::size_t l = 0; l < 3; ++l) (void)test::prefill(cache.layer(l), Tokens(g, 150, l), 0, kPrompt);
    cache.finish_prompt();
    std::size_t entries = 0;
    for (std::size_t l = 0; l < 3; ++l)
      for (std::size_t h = 0; h < 2; ++h) entries += cache.layer(l).head(h).size();
    EXPECT_EQ(entries, 6 * kBudget);
    for (std::size_t l = 0; l < 3; ++l) (void)test::decode(cache.layer(l), Tokens(g, 150, l), kPrompt);
  };
  expect_total(composed<AdaptiveBudget, ResidualMerge, f16>({count(kBudget)}, {}));
  expect_total(composed<TwoStageBudget, DropMerge, q4>({count(kBudget)}, {}));
  expect_total(composed<PyramidBudget, NearestValueMerge>({count(kBudget)}, {}));
}

// Lines that are neither empty nor comments nor include.
std::size_t lines_of_code(const std::string& name) {
  std::ifstream file(std::string(ZEROMERGE_TEST_DATA) + "/../custom_policy/" + name);
  EXPECT_TRUE(file) << name;
  std::size_t lines = 0;
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find_first_not_of(" \t");
    lines += first != std::string::npos && line.compare(first, 2, "//") != 0 && line[first] != '#';
  }
  return lines;
}

TEST(CustomPolicy, AScoreTakesFewerThanThirtyLines) {
  for (const char* name : {"value_window.hpp", "ageing_attention.hpp"}) {
    EXPECT_GT(lines_of_code(name), 5u) << name;
    EXPECT_LT(lines_of_code(name), 30u) << name;
  }
}

}  // namespace
}  // namespace zeromerge
