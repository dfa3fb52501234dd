// The presets as their papers write them, in lists and in double: which tokens every head of every layer
// holds when a prompt has ended, and while tokens are decoded after it. h2o: see h2o_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "support/attention.hpp"
#include "support/plain_scores.hpp"
#include "support/plain_selection.hpp"
#include "support/rounding.hpp"
#include "support/temporary_file.hpp"
#include "zeromerge/cache/presets.hpp"

namespace zeromerge {
namespace {

using test::Gap;
using test::PlainPrompt;
using test::Reals;
using test::Tokens;
using Positions = std::vector<std::size_t>;

constexpr std::size_t kLayers = 3, kHeads = 2, kDim = 16, kPrompt = 180;
constexpr double kDecay = static_cast<double>(0.98f);
const Geometry kGeometry{.layers = kLayers, .query_heads = 6, .kv_heads = kHeads, .head_dim = kDim};

// A model's tokens, layer by layer; queries are those that f16 can hold. Attention gets sharper with the
// layers, so that budgets over all of them have something to find.
std::vector<Tokens> model(std::uint64_t seed, std::size_t count) {
  std::vector<Tokens> all;
  for (std::size_t l = 0; l < kLayers; ++l) {
    all.emplace_back(kGeometry, count, 100 * seed + l);
    for (float& x : all.back().q) x *= 0.4f + 0.4f * static_cast<float>(l);
    all.back().q = test::kept_as<f16>(all.back().q);
  }
  return all;
}

std::unique_ptr<AnyCache> made(const std::string& text) {
  CacheOptions options;
  options.rope = std::make_shared<Rope>(RopeParams{.dims = kDim}, kDim);
  return make_cache(text + ",storage=f32", kGeometry, std::move(options));
}

Positions held(const AnyLayer& layer, std::size_t h) {
  Positions all;
  for (std::size_t j = 0; j < layer.entries(h); ++j) all.push_back(layer.position(h, j));
  std::sort(all.begin(), all.end());
  return all;
}

// What a policy says of one head of one layer, [layer * kHeads + h].
using PerHead = std::function<Reals(const PlainPrompt&, std::size_t)>;

std::vector<Reals> of_all_heads(const std::vector<Tokens>& t, const PerHead& score) {
  std::vector<Reals> all;
  for (std::size_t l = 0; l < kLayers; ++l)
    for (std::size_t h = 0; h < kHeads; ++h) all.push_back(score(PlainPrompt(t[l], kPrompt), h));
  return all;
}

// The first and the last tokens, then the highest of the others by one value after another.
struct Filling {
  std::size_t sinks, recent;
  Positions candidates() const {
    Positions all;
    for (std::size_t j = sinks; j < kPrompt - recent; ++j) all.push_back(j);
    return all;
  }
  Positions with(Positions chosen) const {
    for (std::size_t j = 0; j < sinks; ++j) chosen.push_back(j);
    for (std::size_t j = kPrompt - recent; j < kPrompt; ++j) chosen.push_back(j);
    std::sort(chosen.begin(), chosen.end());
    return chosen;
  }
  Positions by(const Reals& value, std::size_t capacity, Gap& gap) const {
    return with(test::highest(candidates(), capacity - sinks - recent, value, gap));
  }
};

Positions without(Positions all, const Positions& taken) {
  std::erase_if(all, [&](std::size_t j) { return std::find(taken.begin(), taken.end(), j) != taken.end(); });
  return all;
}

void expect_held(AnyCache& cache, const std::vector<Positions>& expected, const Gap& gap,
                 const std::string& text) {
  ASSERT_GT(gap.least(), 1e-5) << "take another seed: a choice hangs on rounding";
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(held(cache.layer(i / kHeads), i % kHeads), expected[i])
        << text << " layer " << i / kHeads << " head " << i % kHeads;
}

std::unique_ptr<AnyCache> after_prompt(const std::string& text, const std::vector<Tokens>& t) {
  auto cache = made(text);
  for (std::size_t l = 0; l < kLayers; ++l) (void)test::prefill(cache->layer(l), t[l], 0, kPrompt);
  cache->finish_prompt();
  return cache;
}

// Heads of one capacity filled by one score.
void expect_filled(const std::string& text, const std::vector<Tokens>& t, const std::vector<Reals>& scores,
                   const std::vector<std::size_t>& capacities,
                   const std::function<Filling(std::size_t)>& filling, Gap gap = {}) {
  const auto cache = after_prompt(text, t);
  std::vector<Positions> expected;
  for (std::size_t i = 0; i < scores.size(); ++i)
    expected.push_back(filling(capacities[i]).by(scores[i], capacities[i], gap));
  expect_held(*cache, expected, gap, text);
}

// AdaKV within each layer: the floor's share alike, the rest by who is among the layer's highest.
std::vector<std::size_t> adaptive(const std::vector<Reals>& values, std::size_t mean, double floor,
                                  std::size_t least, Gap& gap) {
  std::vector<std::size_t> all;
  for (std::size_t l = 0; l < kLayers; ++l) {
    const std::vector<Reals> own(values.begin() + static_cast<std::ptrdiff_t>(l * kHeads),
                                 values.begin() + static_cast<std::ptrdiff_t>((l + 1) * kHeads));
    std::vector<double> weights;
    for (const std::size_t won : test::shares_won(own, mean * kHeads, gap))
      weights.push_back(floor * static_cast<double>(mean) + (1.0 - floor) * static_cast<double>(won));
    for (const std::size_t c : test::in_proportion(weights, mean * kHeads, least, kPrompt)) all.push_back(c);
  }
  return all;
}

// A window of 32 last tokens that is always kept and ranks above all others.
Filling window_of(std::size_t) { return {0, 32}; }
std::vector<Reals> with_window(std::vector<Reals> scores) {
  for (Reals& s : scores) s.insert(s.end(), 32, 1e12);
  return scores;
}
Reals snapkv(const PlainPrompt& p, std::size_t h) { return p.snapkv(h, 32, 5); }

TEST(Baselines, StreamingKeepsTheFirstAndTheNewest) {
  const auto t = model(1, kPrompt + 40);
  for (const auto& [text, budget, sinks] :
       {std::tuple<const char*, std::size_t, std::size_t>{"streaming:budget=50", 50, 4},
        {"streaming:budget=20,sinks=1", 20, 1},
        {"streaming:budget=25%", 45, 4},
        {"streaming:budget=1%", 32, 4}}) {
    const auto cache = after_prompt(text, t);
    const bool share = std::string(text).back() == '%';
    for (std::size_t token = kPrompt; token <= t[0].count; ++token) {
      // A share follows the tokens as they are decoded: 25 % of 180 and more, or the least of 32.
      const std::size_t entries = share ? std::max(budget, budget == 32 ? 0 : token / 4) : budget;
      Positions expected;
      for (std::size_t j = 0; j < sinks; ++j) expected.push_back(j);
      for (std::size_t j = token - (entries - sinks); j < token; ++j) expected.push_back(j);
      for (std::size_t l = 0; l < kLayers; ++l)
        for (std::size_t h = 0; h < kHeads; ++h)
          ASSERT_EQ(held(cache->layer(l), h), expected) << text << " token " << token;
      for (std::size_t l = 0; token < t[0].count && l < kLayers; ++l)
        (void)test::decode(cache->layer(l), t[l], token);
    }
  }
}

TEST(Baselines, SnapKvKeepsWhatTheLastTokensLookAt) {
  const auto t = model(2, kPrompt);
  const auto scores = of_all_heads(t, snapkv);
  expect_filled("snapkv:budget=70", t, scores, std::vector<std::size_t>(6, 70), window_of);
  expect_filled("snapkv:budget=50%", t, scores, std::vector<std::size_t>(6, 90), window_of);
  expect_filled("snapkv:budget=5%", t, scores, std::vector<std::size_t>(6, 64), window_of);
}

TEST(Baselines, PyramidKvGivesTheFirstLayersMore) {
  const auto t = model(3, kPrompt);
  std::vector<double> weights;
  for (const double w : {1.95, 1.0, 0.05}) weights.insert(weights.end(), kHeads, w);
  auto capacities = test::in_proportion(weights, 6 * (90 - 33), 0, kPrompt - 33);
  for (std::size_t& c : capacities) c += 33;  // the window and one more
  expect_filled("pyramidkv:budget=90", t, of_all_heads(t, snapkv), capacities, window_of);
}

TEST(Baselines, AdaKvLetsHeadsOfALayerCompete) {
  const auto t = model(24, kPrompt);
  const auto scores = of_all_heads(t, snapkv);
  for (const auto& [text, floor, least] :
       {std::tuple<const char*, double, std::size_t>{"adakv:budget=90", 0.2, 64},
        {"adakv:budget=90,least=0", 0.2, 33},
        {"adakv:budget=90,least=0,floor=50%", 0.5, 45}}) {
    Gap gap;
    const auto capacities = adaptive(with_window(scores), 90, floor, least, gap);
    EXPECT_NE(capacities[0], capacities[1]);
    expect_filled(text, t, scores, capacities, window_of, gap);
  }
}

TEST(Baselines, DefensiveKeepsTheWorstCase) {
  const auto t = model(5, kPrompt);
  const auto scores =
      of_all_heads(t, [](const PlainPrompt& p, std::size_t h) { return p.defensive(h, 32, 5, 0.9); });
  for (const auto& [text, mean, least] :
       {std::tuple<const char*, std::size_t, std::size_t>{"defensive:budget=90", 90, 64},
        {"defensive:budget=120,least=0", 120, 33}}) {
    Gap gap;
    const auto capacities = adaptive(with_window(scores), mean, 0.0, least, gap);
    expect_filled(text, t, scores, capacities, window_of, gap);
  }
}

TEST(Baselines, ExpectedKeepsWhatComingQueriesWillLookAt) {
  const auto t = model(36, kPrompt);
  const auto scores =
      of_all_heads(t, [](const PlainPrompt& p, std::size_t h) { return p.expected(h, 512, 0.02, 4); });
  Gap gap;
  const auto capacities = adaptive(scores, 60, 0.2, 32, gap);
  expect_filled(
      "expected:budget=60", t, scores, capacities,
      [](std::size_t c) {
        return Filling{4, c / 10};
      },
      gap);
}

Reals keydiff(const PlainPrompt& p, std::size_t h) {
  Positions all(kPrompt);
  for (std::size_t j = 0; j < kPrompt; ++j) all[j] = j;
  return p.keydiff(h, all);
}

TEST(Baselines, KeyDiffKeepsKeysUnlikeTheOthers) {
  const auto t = model(7, kPrompt);
  const auto scores = of_all_heads(t, keydiff);
  // Of 80 places 15 stay free for the block of decoded tokens.
  expect_filled("keydiff:budget=80", t, scores, std::vector<std::size_t>(6, 65), [](std::size_t) {
    return Filling{4, 8};
  });
  expect_filled("keydiff:budget=80,evict=1", t, scores, std::vector<std::size_t>(6, 80), [](std::size_t) {
    return Filling{4, 8};
  });
}

// ---- two stages over all heads and layers

// Every head keeps its first stage by the running score and gets a place for each of what is left that is
// among the highest over all heads by another, which fills `share` of these places, after the running score.
struct TwoStages {
  Filling filling;
  std::size_t mean;
  std::vector<std::size_t> first;  // of each head
  std::size_t group = 1;           // entries beside the last ones come in so many
  double share = 1.0;

  // Whoever has lost most by rounding down is the next to get a whole group of what all have lost.
  void fill_groups(std::vector<std::size_t>& capacities) const {
    std::vector<std::size_t> over;
    std::size_t left = 0;
    for (const std::size_t capacity : capacities) {
      over.push_back(capacity < kPrompt ? (capacity - filling.recent) % group : 0);
      left += over.back();
    }
    for (;;) {
      const auto most = std::max_element(over.begin(), over.end());
      if (*most == 0) return;
      std::size_t& capacity = capacities[static_cast<std::size_t>(most - over.begin())];
      const std::size_t given = std::min(left, group);
      capacity = capacity - *most + given;
      left -= given;
      *most = 0;
    }
  }

  std::vector<Positions> kept(const std::vector<Reals>& running, const std::vector<Reals>& second,
                              Gap& gap) const {
    std::vector<Positions> chosen, left;
    std::vector<Reals> values;
    std::size_t rest = mean * running.size();
    for (std::size_t i = 0; i < running.size(); ++i) {
      rest -= first[i];
      chosen.push_back(
          test::highest(filling.candidates(), first[i] - filling.sinks - filling.recent, running[i], gap));
      left.push_back(without(filling.candidates(), chosen[i]));
      values.emplace_back();
      for (const std::size_t j : left[i]) values[i].push_back(second[i][j]);
    }
    std::vector<std::size_t> capacities = test::shares_won(values, rest, gap);
    for (std::size_t i = 0; i < running.size(); ++i) capacities[i] += first[i];
    fill_groups(capacities);
    for (std::size_t i = 0; i < running.size(); ++i) {
      if (capacities[i] < first[i]) {
        chosen[i] = filling.by(running[i], capacities[i], gap);
        continue;
      }
      const auto by_second =
          static_cast<std::size_t>(share * static_cast<double>(capacities[i] - first[i]) + 0.5);
      for (const std::size_t j :
           test::highest(left[i], capacities[i] - first[i] - by_second, running[i], gap))
        chosen[i].push_back(j);
      left[i] = without(left[i], chosen[i]);
      for (const std::size_t j : test::highest(left[i], by_second, second[i], gap)) chosen[i].push_back(j);
      chosen[i] = filling.with(chosen[i]);
    }
    return chosen;
  }
};

Reals running(const PlainPrompt& p, std::size_t h) { return p.running(h, kDecay); }

TEST(Baselines, BestSharesOutByReplay) {
  const auto t = model(8, kPrompt);
  const auto second = of_all_heads(t, [](const PlainPrompt& p, std::size_t h) { return p.replay(h); });
  const std::vector<std::size_t> even(kLayers * kHeads, 36);  // 30 % of the budget
  // Half of the budget, by the table's shares, but 30 % of it for the head that would get less.
  const std::vector<std::size_t> uneven{36, 108, 54, 54, 45, 63};
  const test::TemporaryFile table("zeromerge-profile 1 layers 3 kv_heads 2 budget 0.1 0.1 12 6 6 5 7");
  const std::string profile = "best:budget=120,first=50%,floor=30%,profile=" + table.path();
  for (const auto& [text, stages] : {std::pair("best:budget=120", TwoStages{{4, 15}, 120, even}),
                                     {"best:budget=120,values=q4", {{4, 15}, 120, even, 32}},
                                     {"best:budget=120,replay=50%", {{4, 15}, 120, even, 1, 0.5}},
                                     {"best:budget=120,replay=30%", {{4, 15}, 120, even, 1, 0.3}},
                                     {profile.c_str(), {{4, 15}, 120, uneven}}}) {
    Gap gap;
    const auto cache = after_prompt(text, t);
    const auto expected = stages.kept(of_all_heads(t, running), second, gap);
    expect_held(*cache, expected, gap, text);
    EXPECT_NE(expected[0].size(), expected[5].size());
  }
}

TEST(Baselines, KvZipSharesOutByASecondReading) {
  constexpr std::size_t kMore = 70;
  const auto t = model(9, kPrompt + kMore);
  Gap gap;
  const auto expected = TwoStages{{4, 6}, 60, std::vector<std::size_t>(kLayers * kHeads, 32)}.kept(
      of_all_heads(t, running),
      of_all_heads(t, [](const PlainPrompt& p, std::size_t h) { return p.second_reading(h, kMore); }), gap);
  auto cache = made("kvzip:budget=60");
  for (std::size_t l = 0; l < kLayers; ++l) {
    (void)test::prefill(cache->layer(l), t[l], 0, kPrompt);
    cache->layer(l).begin_second_reading();
    (void)test::prefill(cache->layer(l), t[l], kPrompt, 40);
    (void)test::prefill(cache->layer(l), t[l], kPrompt + 40, kMore - 40);
    cache->layer(l).end_second_reading();
  }
  cache->finish_prompt();
  expect_held(*cache, expected, gap, "kvzip");
}

// ---- decoded tokens

// One head that goes on after its prompt: sums of attention over what it holds, and eviction in blocks.
class DecodedHead {
 public:
  struct Rules {
    std::size_t budget, sinks, recent, block;
    bool keydiff;  // rates keys again at each block; else by the running score
  };
  DecodedHead(const Tokens& t, std::size_t h, const Positions& prompt, const Rules& rules)
      : t_(t), h_(h), rules_(rules), kept_(prompt) {
    const Reals sums = PlainPrompt(t, kPrompt).sums(h, kDecay);
    for (const std::size_t j : prompt) sum_.push_back(sums[j]);
  }
  const Positions& positions() const { return kept_; }

  void decode(std::size_t token, Gap& gap) {
    kept_.push_back(token);
    sum_.push_back(0.0);
    for (double& x : sum_) x *= kDecay;
    for (std::size_t g = h_ * t_.g.group(); g < (h_ + 1) * t_.g.group(); ++g) {
      const auto a = test::attention(
          t_.query(token, g), kDim, kept_.size(), static_cast<double>(t_.g.attention_scale()), 0.0,
          [&](std::size_t j) { return t_.key(kept_[j], h_); },
          [&](std::size_t j) { return t_.value(kept_[j], h_); }, [](std::size_t) { return 0.0; });
      for (std::size_t j = 0; j < sum_.size(); ++j) sum_[j] += a.probability[j];
    }
    if (kept_.size() <= rules_.budget) return;
    Reals value = rules_.keydiff ? PlainPrompt(t_, kPrompt).keydiff(h_, kept_) : sum_;
    for (std::size_t j = 0; !rules_.keydiff && j < value.size(); ++j)
      value[j] /= PlainPrompt::weight_of(token + 1 - kept_[j], kDecay);
    for (std::size_t fresh = rules_.block; fresh-- > 0;)
      leave(value, kept_.size() - fresh - rules_.recent, gap);
  }

 private:
  void leave(Reals& value, std::size_t last, Gap& gap) {
    std::size_t victim = rules_.sinks;
    for (std::size_t j = rules_.sinks; j < last; ++j)
      if (value[j] < value[victim]) victim = j;
    for (std::size_t j = rules_.sinks; j < last; ++j)
      if (j != victim) gap.note(value[j], value[victim]);
    const auto at = static_cast<std::ptrdiff_t>(victim);
    kept_.erase(kept_.begin() + at);
    sum_.erase(sum_.begin() + at);
    value.erase(value.begin() + at);
  }
  const Tokens& t_;
  std::size_t h_;
  Rules rules_;
  Positions kept_;
  Reals sum_;
};

void compare_decoding(const std::string& text, const DecodedHead::Rules& rules, std::uint64_t seed,
                      std::size_t decoded) {
  const auto t = model(seed, kPrompt + decoded);
  const auto cache = after_prompt(text, t);
  std::vector<DecodedHead> expected;
  for (std::size_t i = 0; i < kLayers * kHeads; ++i)
    expected.emplace_back(t[i / kHeads], i % kHeads, held(cache->layer(i / kHeads), i % kHeads), rules);
  Gap gap;
  for (std::size_t token = kPrompt; token < kPrompt + decoded; ++token) {
    for (std::size_t l = 0; l < kLayers; ++l) (void)test::decode(cache->layer(l), t[l], token);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i].decode(token, gap);
      ASSERT_GT(gap.least(), 1e-6) << "take another seed: a choice hangs on rounding";
      ASSERT_EQ(held(cache->layer(i / kHeads), i % kHeads), expected[i].positions())
          << text << " token " << token << " head " << i;
    }
  }
}

TEST(Baselines, SnapKvDecodesByItsRunningScore) {
  compare_decoding("snapkv:budget=70", {70, 0, 32, 1, false}, 32, 60);
}

TEST(Baselines, KeyDiffRatesAgainAtEveryBlock) {
  compare_decoding("keydiff:budget=80", {80, 4, 8, 16, true}, 13, 100);
  compare_decoding("keydiff:budget=80,evict=1", {80, 4, 8, 1, true}, 14, 40);
}

// A rating stands for itself: it is no sum over queries that an age could be taken out of.
TEST(Baselines, KeyDiffDoesNotDependOnTheRunningScore) {
  compare_decoding("keydiff:budget=80,importance=mean", {80, 4, 8, 16, true}, 15, 60);
}

}  // namespace
}  // namespace zeromerge
