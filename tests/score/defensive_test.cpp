// The defensive score against its six steps in double.
#include "zeromerge/score/defensive.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <vector>

#include "support/isa.hpp"
#include "support/prompt_layer.hpp"

namespace zeromerge {
namespace {

using test::PromptLayer;
using test::shape_of;
using Numbers = std::vector<double>;

constexpr float kFirstLocked = 1e9f;  // every locked entry is above, every other one below

struct Expected {
  Numbers unlocked;    // [entries before the window], steps 1 to 4
  Numbers mean;        // [entries], of p
  double locked_mass;  // that locked entries have to reach
};

Numbers pooled(const Numbers& row, std::size_t kernel) {
  Numbers padded(row.size() + kernel - 1);
  std::copy(row.begin(), row.end(), padded.begin() + static_cast<std::ptrdiff_t>(kernel / 2));
  Numbers out(row.size());
  double before = 0.0, after = 0.0;
  for (std::size_t j = 0; j < row.size(); ++j) {
    for (std::size_t k = 0; k < kernel; ++k) out[j] += padded[j + k] / static_cast<double>(kernel);
    before += row[j];
    after += out[j];
  }
  for (double& x : out) x *= before / after;
  return out;
}

Expected expected(const PromptLayer<>& layer, std::size_t h, const Defensive& score) {
  const std::size_t n = layer.size(h), window = std::min(score.window, n), before = n - window;
  const std::size_t stored = layer.queries.tokens(), asked = std::min(window, stored);
  Expected e{Numbers(before), Numbers(n), 0.0};
  for (std::size_t i = stored - asked; i < stored; ++i)
    for (std::size_t m = h * layer.g.group(); m < (h + 1) * layer.g.group(); ++m) {
      const Numbers p = layer.attention(i, m);
      const Numbers smooth =
          pooled(Numbers(p.begin(), p.begin() + static_cast<std::ptrdiff_t>(before)), score.kernel);
      for (std::size_t j = 0; j < n; ++j) e.mean[j] += p[j] / static_cast<double>(asked * layer.g.group());
      for (std::size_t j = 0; j < before; ++j) e.unlocked[j] = std::max(e.unlocked[j], smooth[j]);
    }
  const double floor =
      std::accumulate(e.unlocked.begin(), e.unlocked.end(), 0.0) / static_cast<double>(before);
  std::map<std::size_t, double> total;
  for (std::size_t other = 0; other < layer.g.kv_heads; ++other)
    for (std::size_t j = 0; j < layer.size(other); ++j)
      total[layer.position(other, j)] += layer.value_norm(other, j);
  for (std::size_t j = 0; j < before; ++j)
    e.unlocked[j] = std::max(e.unlocked[j], floor) * layer.value_norm(h, j) / total[layer.position(h, j)];
  const double all = std::accumulate(e.mean.begin(), e.mean.end(), 0.0);
  e.locked_mass = static_cast<double>(score.lock) * all -
                  std::accumulate(e.mean.begin() + static_cast<std::ptrdiff_t>(before), e.mean.end(), 0.0);
  return e;
}

// How much the entries have that `mean` ranks above entry j.
double mass_above(const Expected& e, std::size_t j) {
  double sum = 0.0;
  for (std::size_t i = 0; i < e.unlocked.size(); ++i)
    if (e.mean[i] > e.mean[j]) sum += e.mean[i];
  return sum;
}

std::size_t check(const PromptLayer<>& layer, const Defensive& score = {}) {
  SCOPED_TRACE(testing::Message() << layer.g.query_heads << "/" << layer.g.kv_heads << "x" << layer.g.head_dim
                                  << ", " << layer.tokens << " tokens, " << layer.queries.tokens()
                                  << " queries");
  const Ratings got = score.rate(layer.view());
  std::size_t locked = 0;
  EXPECT_EQ(got.size(), layer.g.kv_heads);
  for (std::size_t h = 0; h < got.size(); ++h) {
    const Expected e = expected(layer, h, score);
    EXPECT_EQ(got[h].size(), layer.size(h));
    for (std::size_t j = 0; j < e.unlocked.size(); ++j) {
      const bool is_locked = got[h][j] > kFirstLocked;
      locked += is_locked;
      if (!is_locked) {
        EXPECT_NEAR(got[h][j], e.unlocked[j], 1e-4 * e.unlocked[j] + 1e-9) << "head " << h << " entry " << j;
      }
      const double above = mass_above(e, j);
      if (std::abs(above - e.locked_mass) > 1e-5) {  // nearer f32 may decide otherwise
        EXPECT_EQ(is_locked, above < e.locked_mass) << "head " << h << " entry " << j;
      }
    }
    for (std::size_t j = e.unlocked.size(); j < got[h].size(); ++j) EXPECT_EQ(got[h][j], kAlwaysKept);
  }
  return locked;
}

class DefensiveScore : public test::EachIsa {};

TEST_P(DefensiveScore, IsItsFormula) {
  for (const std::size_t head_dim : {64, 80, 128})
    for (const std::size_t group : {1, 3, 4})
      EXPECT_GT(check(PromptLayer<>(shape_of(2, group, head_dim), {97, 97})), 0u);
  for (const std::size_t tokens : {33, 48, 49, 64, 65, 255, 256, 257})
    check(PromptLayer<>(shape_of(2, 3, 64), {tokens, tokens}));
}

TEST_P(DefensiveScore, LocksNothingWhereTheWindowHasEnough) {
  const PromptLayer<> layer(shape_of(2, 3, 64), {150, 150});
  EXPECT_EQ(check(layer, {32, 5, 0.0f}), 0u);
  EXPECT_GT(check(layer, {16, 7, 0.5f}), 0u);
  EXPECT_EQ(check(layer, {16, 1, 1.5f}), 2u * (150 - 16));
}

TEST_P(DefensiveScore, AsksTheQueriesThatAreThere) {
  check(PromptLayer<>(shape_of(2, 3, 64), {130, 40}));
  check(PromptLayer<>(shape_of(2, 3, 64), {130, 7}));
  const Ratings nobody = Defensive{}.rate(PromptLayer<>(shape_of(2, 3, 64), {130, 0}).view());
  for (std::size_t j = 0; j < 130; ++j) EXPECT_EQ(nobody[0][j], j < 98 ? 0.0f : kAlwaysKept);
}

TEST_P(DefensiveScore, ComparesValuesOfTheSameTokenWhereEntriesHaveLeft) {
  check(PromptLayer<>(shape_of(3, 2, 64), {.tokens = 150, .queries = 50, .thinned = true}));
}

TEST_P(DefensiveScore, KnowsSoftCapsSinkLogitsAndMergedEntries) {
  check(PromptLayer<>(shape_of(1, 3, 64, 5.0f), {90, 90}));
  PromptLayer<> layer(shape_of(1, 3, 64), {.tokens = 90, .queries = 90, .merged = true});
  layer.sinks = {0.5f, 4.0f, -1.0f};
  check(layer);
}

TEST_P(DefensiveScore, LockedEntriesRankByTheirMeanAttention) {
  const Defensive score;
  const PromptLayer<> layer(shape_of(1, 3, 64), {120, 120});
  const Ratings got = score.rate(layer.view());
  const Expected e = expected(layer, 0, score);
  for (std::size_t a = 0; a < e.unlocked.size(); ++a)
    for (std::size_t b = 0; b < e.unlocked.size(); ++b)
      if (got[0][a] > kFirstLocked && e.mean[a] > 1.001 * e.mean[b]) {
        EXPECT_GT(got[0][a], got[0][b]) << a << " " << b;
      }
}

TEST_P(DefensiveScore, TheWindowIsAlwaysKept) {
  for (const std::size_t tokens : {1, 31, 32}) {
    const Ratings got = Defensive{}.rate(PromptLayer<>(shape_of(2, 3, 64), {tokens, tokens}).view());
    EXPECT_EQ(got, Ratings(2, std::vector<float>(tokens, kAlwaysKept)));
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, DefensiveScore, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
