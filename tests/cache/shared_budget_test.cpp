// Budgets over all layers in a cache: whoever ends the prompt, and in whatever order, the total is exact.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/attention.hpp"
#include "support/held.hpp"
#include "support/sequence.hpp"
#include "support/temporary_file.hpp"

namespace zeromerge {
namespace {

using test::Tokens;

constexpr std::size_t kLayers = 4, kHeads = 2, kDim = 16, kPrompt = 150;
const Geometry kGeometry{.layers = kLayers, .query_heads = 6, .kv_heads = kHeads, .head_dim = kDim};

// Every budget over all layers; one of them reads a profile, whose file lives as long as this.
class Shared {
 public:
  auto begin() const { return all_.begin(); }
  auto end() const { return all_.end(); }
  const std::string& by_profile() const { return all_.back(); }

 private:
  test::TemporaryFile table_{"zeromerge-profile 1 layers 4 kv_heads 2 budget 0.2 1 2 0.1 0.4 3 1 0.5 1.5"};
  std::vector<std::string> all_{
      "heads=two-stage",          "heads=two-stage,replay=100%,merge=drop",
      "heads=global,window=100%", "heads=pyramid",
      "heads=pyramid,residual=3", "heads=two-stage,replay=100%,merge=drop,profile=" + table_.path()};
};

CacheOptions options(std::size_t sequences = 1, Executor executor = serial()) {
  CacheOptions o;
  o.sequences = sequences;
  o.executor = std::move(executor);
  o.rope = std::make_shared<Rope>(RopeParams{.dims = kDim}, kDim);
  return o;
}

test::Cache<> made(const std::string& heads, const std::string& budget = "40", CacheOptions o = options()) {
  return test::make("tail=10,least=8,budget=" + budget + "," + heads, kGeometry, std::move(o));
}

// Tokens of every layer, in some of which attention is sharper than in others.
std::vector<Tokens> model(std::uint64_t seed, std::size_t count = kPrompt + 100) {
  std::vector<Tokens> all;
  for (std::size_t l = 0; l < kLayers; ++l) {
    all.emplace_back(kGeometry, count, 10 * seed + l);
    for (float& x : all.back().q) x *= 0.5f + 0.5f * static_cast<float>(l);
  }
  return all;
}

template <class Cache>
void take(Cache& cache, const std::vector<Tokens>& t, std::size_t first, std::size_t n,
          std::size_t sequence = 0) {
  for (std::size_t l = 0; l < kLayers; ++l) (void)test::prefill(cache.layer(l, sequence), t[l], first, n);
}

template <class Cache>
std::vector<test::HeldLayer> state(Cache& cache, std::size_t sequence = 0) {
  std::vector<test::HeldLayer> all;
  for (std::size_t l = 0; l < kLayers; ++l) all.push_back(test::held_layer(cache.layer(l, sequence), kHeads));
  return all;
}

void expect_same(const std::vector<test::HeldLayer>& a, const std::vector<test::HeldLayer>& b,
                 const std::string& what) {
  for (std::size_t l = 0; l < a.size(); ++l)
    EXPECT_EQ(test::difference(a[l], b[l]), "") << what << ", layer " << l;
}

template <class Cache>
std::size_t entries(Cache& cache, std::size_t sequence = 0) {
  std::size_t sum = 0;
  for (std::size_t l = 0; l < kLayers; ++l)
    for (std::size_t h = 0; h < kHeads; ++h) sum += cache.layer(l, sequence).head(h).size();
  return sum;
}

// What the heads may hold.
template <class Cache>
std::size_t capacities(Cache& cache) {
  std::size_t sum = 0;
  for (std::size_t l = 0; l < kLayers; ++l)
    for (std::size_t h = 0; h < kHeads; ++h) sum += cache.layer(l).state(h).division.capacity;
  return sum;
}

TEST(SharedBudget, EndingTogetherIsTheSameHoweverItIsSaid) {
  const auto t = model(1);
  const Shared shared;
  for (const std::string& heads : shared) {
    auto whole = made(heads);
    auto parts = made(heads);
    auto implicit = made(heads);
    auto threaded = made(heads, "40", options(1, threads(3)));
    for (auto* cache : {&whole, &parts, &implicit, &threaded}) take(*cache, t, 0, kPrompt);
    whole.finish_prompt();
    EXPECT_EQ(entries(whole), 40 * kLayers * kHeads) << heads;
    std::vector<LayerCache<test::ZeroMergeOf<>>*> layers;
    for (std::size_t l = 0; l < kLayers; ++l) layers.push_back(&parts.layer(l));
    finish_together(std::span<LayerCache<test::ZeroMergeOf<>>* const>(layers));
    threaded.finish_prompt();
    expect_same(state(whole), state(parts), heads);
    expect_same(state(whole), state(threaded), heads);
    for (std::size_t l = 0; l < kLayers; ++l) {
      (void)test::decode(whole.layer(l), t[l], kPrompt);
      (void)test::decode(implicit.layer(l), t[l], kPrompt);
    }
    expect_same(state(whole), state(implicit), heads);
  }
}

TEST(SharedBudget, HeadsDifferWhereTheBudgetSaysSo) {
  const auto t = model(2);
  for (const char* heads : {"heads=two-stage,replay=100%,merge=drop", "heads=global,window=100%"}) {
    auto cache = made(heads);
    take(cache, t, 0, kPrompt);
    cache.finish_prompt();
    std::size_t least = kPrompt, most = 0;
    for (const auto& layer : state(cache))
      for (const auto& head : layer.heads) {
        least = std::min(least, head.size);
        most = std::max(most, head.size);
      }
    EXPECT_LT(least, 40u) << heads;
    EXPECT_GT(most, 40u) << heads;
  }
}

TEST(SharedBudget, LayerByLayerTheTotalIsExactPromptAfterPrompt) {
  const auto t = model(3, 600);
  const Shared shared;
  for (const std::string& heads : shared) {
    auto cache = made(heads);
    std::size_t token = 0;
    for (const std::size_t prompt : {kPrompt, std::size_t{60}, std::size_t{1}}) {
      for (std::size_t l = 0; l < kLayers; ++l) {
        (void)test::prefill(cache.layer(l), t[l], token, prompt);
        cache.layer(l).finish_prompt();
      }
      ASSERT_TRUE(token != 0 || entries(cache) == 40 * kLayers * kHeads) << heads;
      token += prompt;
      EXPECT_EQ(capacities(cache), 40 * kLayers * kHeads) << heads << " after " << token;
      for (std::size_t i = 0; i < 30; ++i, ++token)
        for (std::size_t l = 0; l < kLayers; ++l) (void)test::decode(cache.layer(l), t[l], token);
      EXPECT_LE(entries(cache), 40 * kLayers * kHeads) << heads << " after " << token;
    }
  }
}

TEST(SharedBudget, APromptThatIsGivenUpLeavesNothingBehind) {
  const auto t = model(4);
  const Shared shared;
  for (const std::string& heads : shared) {
    auto fresh = made(heads);
    auto used = made(heads);
    for (std::size_t l = 0; l < 2; ++l) {
      (void)test::prefill(used.layer(l), t[l], 50, kPrompt);
      used.layer(l).finish_prompt();
    }
    used.clear();
    for (auto* cache : {&fresh, &used})
      for (std::size_t l = 0; l < kLayers; ++l) {
        (void)test::prefill(cache->layer(l), t[l], 0, kPrompt);
        cache->layer(l).finish_prompt();
      }
    expect_same(state(fresh), state(used), heads);
  }
}

TEST(SharedBudget, SequencesDoNotKnowOfOneAnother) {
  const auto t = model(5), other = model(6);
  const Shared shared;
  for (const std::string& heads : shared) {
    auto alone = made(heads);
    auto both = made(heads, "40", options(2));
    for (std::size_t l = 0; l < kLayers; ++l) {
      (void)test::prefill(alone.layer(l), t[l], 0, kPrompt);
      alone.layer(l).finish_prompt();
      for (std::size_t s = 0; s < 2; ++s) {
        const auto& own = s == 1 ? t : other;
        (void)test::prefill(both.layer(l, s), own[l], 0, kPrompt);
        both.layer(l, s).finish_prompt();
      }
    }
    expect_same(state(alone), state(both, 1), heads);
    auto together = made(heads, "40", options(2));
    take(together, t, 0, kPrompt, 0);
    take(together, other, 0, kPrompt - 30, 1);
    (void)test::decode(together.layer(0, 1), other[0], kPrompt - 30);
    EXPECT_TRUE(together.layer(0, 0).in_prompt()) << "its own prompt goes on";
    EXPECT_FALSE(together.layer(kLayers - 1, 1).in_prompt());
  }
}

TEST(SharedBudget, ABudgetForEverythingIsExactAndGoesOnGrowing) {
  const auto t = model(7);
  const Shared shared;
  for (const std::string& heads : shared)
    for (const bool together : {true, false}) {
      auto cache = made(heads, "200");
      auto full = test::make("budget=1000", kGeometry);
      take(full, t, 0, kPrompt);
      for (std::size_t l = 0; l < kLayers; ++l) {
        (void)test::prefill(cache.layer(l), t[l], 0, kPrompt);
        if (!together) cache.layer(l).finish_prompt();
      }
      for (std::size_t token = kPrompt; token < kPrompt + 80; ++token)
        for (std::size_t l = 0; l < kLayers; ++l) {
          const auto out = test::decode(cache.layer(l), t[l], token);
          const auto expected = test::decode(full.layer(l), t[l], token);
          for (std::size_t h = 0; h < kHeads; ++h)
            ASSERT_EQ(cache.layer(l).head(h).size(), std::min<std::size_t>(token + 1, 200)) << heads;
          for (std::size_t i = 0; token < 196 && i < out.size(); ++i)
            ASSERT_NEAR(out[i], expected[i], 1e-5) << heads << " token " << token;
        }
    }
}

// Heads that have got many entries keep them while a share budget grows with the sequence.
TEST(SharedBudget, ALaterPromptThatFitsCutsNothing) {
  const auto t = model(8);
  const Shared shared;
  for (const std::string& heads :
       {std::string("heads=two-stage,replay=100%,merge=drop"), shared.by_profile()}) {
    auto cache = made(heads, "170");
    take(cache, t, 0, kPrompt);
    cache.finish_prompt();
    for (std::size_t token = kPrompt; token < 165; ++token)
      for (std::size_t l = 0; l < kLayers; ++l) (void)test::decode(cache.layer(l), t[l], token);
    const auto before = state(cache);
    take(cache, t, 165, 5);
    cache.finish_prompt();
    const auto after = state(cache);
    for (std::size_t l = 0; l < kLayers; ++l)
      for (std::size_t h = 0; h < kHeads; ++h)
        EXPECT_EQ(after[l].heads[h].size, before[l].heads[h].size + 5)
            << heads << " layer " << l << " head " << h;
  }
}

TEST(SharedBudget, AnImpossibleOneThrowsWithNothingChanged) {
  const auto t = model(9);
  for (const char* heads : {"heads=two-stage", "heads=global,window=100%", "heads=pyramid"}) {
    auto cache = test::make(std::string("budget=5%,least=0,tail=40,") + heads, kGeometry, options());
    take(cache, t, 0, kPrompt);
    const auto before = state(cache);
    EXPECT_THROW(cache.finish_prompt(), Error) << heads;
    expect_same(before, state(cache), heads);
    EXPECT_THROW(cache.layer(1).finish_prompt(), Error) << heads;
    EXPECT_THROW((void)test::decode(cache.layer(2), t[2], kPrompt), Error) << heads;
    expect_same(before, state(cache), heads);
  }
}

// ---- the budget by error

constexpr std::size_t kLeast = 16;  // 4 sinks, 10 recent, 1 merged and 1 more

// Entries of every head under this bound.
std::vector<std::size_t> spent(const std::vector<Tokens>& t, const std::string& error,
                               const std::string& more = "") {
  auto cache =
      make_cache("zeromerge:storage=f32,tail=10,heads=error,error=" + error + more, kGeometry, options());
  std::vector<std::size_t> all;
  for (std::size_t l = 0; l < kLayers; ++l) (void)test::prefill(cache->layer(l), t[l], 0, kPrompt);
  cache->finish_prompt();
  for (std::size_t l = 0; l < kLayers; ++l)
    for (std::size_t h = 0; h < kHeads; ++h) all.push_back(cache->layer(l).entries(h));
  return all;
}

// How far a head's outputs for the reference queries are from those over the whole prompt, as it came and in
// plain loops; relative.
double plain_error(const Tokens& t, const AnyLayer& layer, std::size_t h) {
  ByteLedger ledger;
  QueryRows queries(kGeometry.query_heads, kDim, kGeometry.attention_scale(), &ledger);
  queries.reserve(kPrompt);
  queries.append(t.queries(0, kPrompt));
  const Rope rope({.dims = kDim}, kDim);
  const Executor executor = serial();
  const PromptView<Head<float>> view{kGeometry.shape(0), {}, kPrompt, queries, &rope, nullptr, executor, {}};
  const ReferenceQueries<Head<float>> references(view, detail::kMeasured, RefitParams{}.reach);
  std::vector<float> keys(layer.entries(h) * kDim), values(keys.size()), q(kDim);
  for (std::size_t j = 0; j < layer.entries(h); ++j) {
    layer.read_key(h, j, keys.data() + j * kDim);
    layer.read_value(h, j, values.data() + j * kDim);
  }
  double difference = 0.0, size = 0.0;
  for (std::size_t row = 0; row < references.rows(); ++row) {
    references.read(h, row, q.data());
    const auto over = [&](std::size_t n, const auto& key, const auto& value, const auto& bias) {
      return test::attention(q.data(), kDim, n, std::log(2.0), 0.0, key, value, bias).out;
    };
    const auto whole = over(
        kPrompt, [&](std::size_t j) { return t.key(j, h); }, [&](std::size_t j) { return t.value(j, h); },
        [](std::size_t) { return 0.0f; });
    const auto kept = over(
        layer.entries(h), [&](std::size_t j) { return keys.data() + j * kDim; },
        [&](std::size_t j) { return values.data() + j * kDim; },
        [&](std::size_t j) { return 0.6f * std::log(layer.mass(h, j)); });
    for (std::size_t d = 0; d < kDim; ++d) {
      difference += (kept[d] - whole[d]) * (kept[d] - whole[d]);
      size += whole[d] * whole[d];
    }
  }
  return std::sqrt(difference / size);
}

// And one entry less in a head exceeds it. What is stored in 4 bits is measured so.
TEST(ErrorBudget, TheErrorStaysWithinTheBoundByAsFewEntriesAsDoIt) {
  const auto t = model(10);
  const auto ended = [&](const std::string& spec) {
    auto cache = make_cache("zeromerge:tail=10," + spec, kGeometry, options());
    for (std::size_t l = 0; l < kLayers; ++l) (void)test::prefill(cache->layer(l), t[l], 0, kPrompt);
    cache->finish_prompt();
    return cache;
  };
  std::size_t between = 0;
  for (const auto& [storage, bound] : std::vector<std::pair<std::string, double>>{
           {"storage=f32", 0.02}, {"storage=f32", 0.1}, {"storage=f32", 0.3}, {"storage=q4", 0.3}}) {
    for (const char* merge : {",merge=drop", ""}) {
      SCOPED_TRACE(storage + merge + ", error " + std::to_string(bound));
      const auto cache = ended(storage + merge + ",heads=error,error=" + std::to_string(bound));
      for (std::size_t l = 0; l < kLayers; ++l)
        for (std::size_t h = 0; h < kHeads; ++h) {
          SCOPED_TRACE("layer " + std::to_string(l) + ", head " + std::to_string(h));
          const std::size_t n = cache->layer(l).entries(h);
          if (n == kPrompt) continue;
          EXPECT_LE(plain_error(t[l], cache->layer(l), h), 1.01 * bound);
          if (n == kLeast) continue;
          ++between;
          const auto less = ended(storage + merge + ",budget=" + std::to_string(n - 1));
          EXPECT_GT(plain_error(t[l], less->layer(l), h), 0.99 * bound);
        }
    }
  }
  EXPECT_GT(between, 40u) << "of 64 heads";
}

TEST(ErrorBudget, ASmallerErrorNeverTakesFewerEntries) {
  const auto t = model(11);
  for (const char* more : {"", ",merge=drop", ",replay=100%,merge=drop"}) {
    std::vector<std::size_t> before(kLayers * kHeads, kPrompt);
    for (const char* error : {"0.000001", "0.01", "0.05", "0.1", "0.3", "1", "100"}) {
      const auto now = spent(t, error, more);
      for (std::size_t h = 0; h < now.size(); ++h) {
        EXPECT_LE(now[h], before[h]) << "head " << h << " error " << error << more;
        EXPECT_LE(now[h], kPrompt);
      }
      before = now;
    }
    EXPECT_LT(before[0], 20u) << "an error that allows everything leaves what is exempt";
  }
}

TEST(ErrorBudget, WithoutQueriesTheBudgetIsGiven) {
  const auto t = model(12);
  auto cache = made("heads=error,error=0.0001");
  for (std::size_t l = 0; l < kLayers; ++l)
    cache.layer(l).extend(t[l].keys(0, kPrompt), t[l].values(0, kPrompt));
  cache.finish_prompt();
  EXPECT_EQ(entries(cache), 40 * kLayers * kHeads);
}

// budget= is not used where errors can be measured, so that it cannot be too small.
TEST(ErrorBudget, ATailAboveTheDefaultBudgetIsPossible) {
  const auto t = model(14);
  for (const bool measured : {true, false}) {
    auto cache = test::make("tail=60,heads=error,error=0.1", kGeometry, options());
    for (std::size_t l = 0; l < kLayers; ++l)
      if (measured)
        (void)test::prefill(cache.layer(l), t[l], 0, kPrompt);
      else
        cache.layer(l).extend(t[l].keys(0, kPrompt), t[l].values(0, kPrompt));
    EXPECT_NO_THROW(cache.finish_prompt());
    EXPECT_GE(entries(cache), 66 * kLayers * kHeads) << "4 sinks, 60 recent, 1 merged and 1 more";
  }
}

TEST(ErrorBudget, AShortPromptStaysWholeAndHasWhatItNeedsToGoOn) {
  const auto t = model(13);
  auto cache = made("heads=error,error=0.1");
  take(cache, t, 0, 5);
  for (std::size_t token = 5; token < 60; ++token)
    for (std::size_t l = 0; l < kLayers; ++l) (void)test::decode(cache.layer(l), t[l], token);
  for (const auto& layer : state(cache))
    for (const auto& head : layer.heads) EXPECT_EQ(head.size, kLeast);
}

}  // namespace
}  // namespace zeromerge
