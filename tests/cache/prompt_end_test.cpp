// What a policy that keeps the prompt's queries does when the prompt ends: replay chooses, values are fitted,
// the queries are given back.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::Tokens;

const Geometry kGeometry{.query_heads = 6, .kv_heads = 2, .head_dim = 64};
constexpr std::size_t kTokens = 150;

CacheOptions with_rope(Executor executor = serial()) {
  CacheOptions options;
  options.executor = std::move(executor);
  options.rope = std::make_shared<Rope>(RopeParams{.dims = 64}, 64);
  return options;
}

template <class K = float>
test::Cache<K> made(const std::string& settings, Executor executor = serial()) {
  return test::make<K>(settings, kGeometry, with_rope(std::move(executor)));
}

// Its entries in a head of the test's own.
Head<float> copied(const Head<float>& head) {
  static ByteLedger ledger;
  Head<float> copy(head.head_dim(), head.fields(), &ledger);
  copy.fit(head.size());
  for (std::size_t j = 0; j < head.size(); ++j) copy.copy(head, j, j);
  copy.set_size(head.size());
  return copy;
}

// The positions that a head holds.
template <class Layer>
std::set<std::size_t> positions(const Layer& layer, std::size_t h) {
  const auto& head = layer.head(h);
  return {head.position(), head.position() + head.size()};
}

// The log, base 2, of what each query saw the first time, without entry 0.
void write_local_sums(const Tokens& t, float* to) {
  for (std::size_t i = 0; i < kTokens; ++i)
    for (std::size_t m = 0; m < kGeometry.query_heads; ++m) {
      double sum = 0.0;
      for (std::size_t j = 1; j <= i; ++j) {
        double logit = 0.0;
        for (std::size_t d = 0; d < kGeometry.head_dim; ++d)
          logit +=
              static_cast<double>(t.query(i, m)[d]) * static_cast<double>(t.key(j, m / kGeometry.group())[d]);
        sum += std::exp(logit * static_cast<double>(kGeometry.attention_scale()));
      }
      *to++ = i == 0 ? kernels::kMasked : static_cast<float>(std::log2(sum));
    }
}

// Importance of a whole prompt by replay, from a cache that still has all of it.
std::vector<std::vector<float>> replayed(const Tokens& t) {
  auto full = made("budget=1000");
  (void)test::prefill(full.layer(0), t, 0, kTokens);
  ByteLedger ledger;
  QueryRows queries(kGeometry.query_heads, kGeometry.head_dim, kGeometry.attention_scale(), &ledger);
  queries.reserve(kTokens);
  write_local_sums(t, queries.append(t.queries(0, kTokens)));
  const Rope rope({.dims = 64}, 64);
  const Head<float> heads[] = {copied(full.layer(0).head(0)), copied(full.layer(0).head(1))};
  const Executor executor = serial();
  return Replay{}.rate(
      PromptView<Head<float>>{kGeometry.shape(0), heads, kTokens, queries, &rope, nullptr, executor, {}});
}

// The first 4, the last 16 and the best `count` of the others.
std::set<std::size_t> best(const std::vector<float>& importance, std::size_t count,
                           std::set<std::size_t> kept) {
  std::vector<std::size_t> order;
  for (std::size_t j = 4; j < kTokens - 16; ++j)
    if (!kept.contains(j)) order.push_back(j);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return importance[a] > importance[b]; });
  kept.insert(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count));
  return kept;
}

std::set<std::size_t> protected_ones() {
  std::set<std::size_t> kept{0, 1, 2, 3};
  for (std::size_t j = kTokens - 16; j < kTokens; ++j) kept.insert(j);
  return kept;
}

TEST(PromptEnd, ReplayChoosesItsShare) {
  const Tokens t(kGeometry, kTokens, 1);
  const auto importance = replayed(t);
  auto scored = made("budget=1000");
  (void)test::prefill(scored.layer(0), t, 0, kTokens);
  for (const auto& [share, by_replay] :
       {std::pair<const char*, std::size_t>{"100%", 20}, {"50%", 10}, {"12%", 2}}) {
    auto cache = made("budget=40,tail=16,merge=drop,replay=" + std::string(share));
    (void)test::prefill(cache.layer(0), t, 0, kTokens);
    cache.finish_prompt();
    for (std::size_t h = 0; h < 2; ++h) {
      const auto& head = scored.layer(0).head(h);
      const std::vector<float> score(head.score(), head.score() + head.size());
      const auto expected = best(importance[h], by_replay, best(score, 20 - by_replay, protected_ones()));
      EXPECT_EQ(positions(cache.layer(0), h), expected) << share << ", head " << h;
    }
  }
}

TEST(PromptEnd, ChunksAndThreadsChangeNothing) {
  const Tokens t(kGeometry, kTokens + 5, 2);
  for (const char* settings :
       {"budget=40,merge=drop,replay=100%,refit=64", "budget=40,replay=100%,refit=64"}) {
    const auto outputs = [&](std::size_t chunk, Executor executor) {
      auto cache = made<q4>(settings, std::move(executor));
      for (std::size_t first = 0; first < kTokens; first += chunk)
        (void)test::prefill(cache.layer(0), t, first, std::min(chunk, kTokens - first));
      return test::decode(cache.layer(0), t, kTokens);
    };
    const auto whole = outputs(kTokens, serial());
    EXPECT_TRUE(test::same_bits(outputs(kTokens, threads(3)), whole));
    const auto chunked = outputs(37, serial());
    for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(chunked[i], whole[i], 1e-4);
  }
}

TEST(PromptEnd, FittedValuesAreTheRegressionsOwn) {
  const Tokens t(kGeometry, kTokens, 3);
  auto plain = made("budget=40,merge=drop");
  auto fitted = made("budget=40,merge=drop,refit=32,ridge=0.2");
  auto full = made("budget=1000");
  for (auto* cache : {&plain, &fitted, &full}) {
    (void)test::prefill(cache->layer(0), t, 0, kTokens);
    cache->finish_prompt();
  }
  ByteLedger ledger;
  QueryRows queries(kGeometry.query_heads, kGeometry.head_dim, kGeometry.attention_scale(), &ledger);
  queries.reserve(kTokens);
  queries.append(t.queries(0, kTokens));
  const Rope rope({.dims = 64}, 64);
  const Executor executor = serial();
  const PromptView<Head<float>> view{kGeometry.shape(0), {}, kTokens, queries, &rope, nullptr, executor, {}};
  const ReferenceQueries<Head<float>> references(view, 32, RefitParams{}.reach);
  const ValueRefit<Head<float>> refit({.references = 32, .ridge = 0.2f}, references);
  std::vector<Head<float>> all, kept;
  for (std::size_t h = 0; h < 2; ++h) {
    all.push_back(copied(full.layer(0).head(h)));
    kept.push_back(copied(plain.layer(0).head(h)));
  }
  refit.fit(all, kept, threads(3));
  for (std::size_t h = 0; h < 2; ++h) {
    std::vector<float> a(64), b(64), before(64);
    bool changed = false;
    for (std::size_t j = 0; j < 40; ++j) {
      fitted.layer(0).head(h).read_value(j, a.data());
      kept[h].read_value(j, b.data());
      plain.layer(0).head(h).read_value(j, before.data());
      ASSERT_TRUE(test::same_bits(a, b)) << "head " << h << " entry " << j;
      changed = changed || a != before;
    }
    EXPECT_TRUE(changed);
  }
}

TEST(PromptEnd, QueriesAreCountedAndGivenBack) {
  const Tokens t(kGeometry, kTokens, 4);
  auto without = made("budget=40,merge=drop");
  auto with = made("budget=40,merge=drop,replay=100%,refit=16");
  for (auto* cache : {&without, &with}) (void)test::prefill(cache->layer(0), t, 0, kTokens);
  EXPECT_GE(with.bytes().held, without.bytes().held + kTokens * 6 * 64 * sizeof(f16));
  EXPECT_EQ(with.layer(0).bytes(), with.bytes().held);
  with.finish_prompt();
  without.finish_prompt();
  EXPECT_EQ(with.bytes().held, without.bytes().held);
}

// A past without queries, and one that was shortened: whoever is left is asked, or the score alone decides.
TEST(PromptEnd, AsksOnlyTheQueriesOfWhatIsThere) {
  const Tokens t(kGeometry, kTokens, 5);
  const auto kept = [&](const std::function<void(LayerCache<test::ZeroMergeOf<>>&)>& prompt,
                        const char* replay) {
    auto cache = made(std::string("budget=40,tail=16,merge=drop,replay=") + replay);
    prompt(cache.layer(0));
    cache.finish_prompt();
    return positions(cache.layer(0), 0);
  };
  const auto restored = [&](auto& layer) {
    (void)test::prefill(layer, t, 0, 50);
    layer.extend(t.keys(50, kTokens - 50), t.values(50, kTokens - 50));
  };
  EXPECT_EQ(kept(restored, "100%"), kept(restored, "0%"));
  const auto shortened = [&](auto& layer) {
    (void)test::prefill(layer, t, 0, 120);
    layer.truncate(90);
    (void)test::prefill(layer, t, 90, kTokens - 90);
  };
  const auto straight = [&](auto& layer) { (void)test::prefill(layer, t, 0, kTokens); };
  EXPECT_EQ(kept(shortened, "100%"), kept(straight, "100%"));
}

// Few queries say little of where keys may move: they stay within two steps of 4 bits, whatever is asked.
TEST(PromptEnd, KeysRoundedByFewQueriesStayNearWhatCame) {
  const Geometry g{.query_heads = 4, .kv_heads = 1, .head_dim = 128};
  const Tokens t(g, kTokens, 6);
  CacheOptions o;
  o.rope = std::make_shared<Rope>(RopeParams{.dims = 128}, 128);
  for (const char* refit : {"1", "16", "64"}) {
    const auto cache = make_cache(
        "zeromerge:budget=100,tail=10,merge=drop,storage=q4,rounding=queries,refit=" + std::string(refit), g,
        o);
    (void)test::prefill(cache->layer(0), t, 0, kTokens);
    cache->finish_prompt();
    std::vector<float> key(128);
    for (std::size_t j = 0; j < 100; ++j) {
      cache->layer(0).read_key(0, j, key.data());
      const float* came = t.key(cache->layer(0).position(0, j), 0);
      for (std::size_t d = 0; d < 128; ++d)
        ASSERT_NEAR(key[d], came[d], 0.9) << "refit=" << refit << ", entry " << j << ", channel " << d;
    }
  }
}

TEST(PromptEnd, RefusesWhatCannotBe) {
  EXPECT_THROW((void)test::make("budget=40,replay=50%", kGeometry), Error) << "no RoPE";
  EXPECT_THROW((void)test::make("budget=40,refit=64", kGeometry), Error) << "no RoPE";
  EXPECT_THROW((void)made("budget=40,refit=64,bounded=1"), Error);
  EXPECT_THROW((void)made("budget=40,refit=64,reference=1"), Error);
  EXPECT_THROW((void)made("budget=40,replay=20"), Error) << "a share is asked for";
  EXPECT_THROW((void)made("budget=40,refit=64,ridge=0"), Error);
  EXPECT_NO_THROW((void)test::make("budget=40", kGeometry));
}

}  // namespace
}  // namespace zeromerge
