// Budgets in bytes: what is held is what was asked for.
#include "zeromerge/cache/ask_budget.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "support/refusal.hpp"
#include "support/sequence.hpp"
#include "zeromerge/cache/named_policy.hpp"

namespace zeromerge {
namespace {

constexpr std::size_t kLayers = 3, kHeads = 2, kPrompt = 400;

using test::contains;
using test::refusal;

struct Filled {
  std::unique_ptr<AnyCache> cache;
  std::size_t bytes = 0;    // of a head
  std::size_t entries = 0;  // of all heads
};

// A cache after a prompt and enough tokens that no head grows any more.
// Bytes are those of entries and what is kept beside them: nothing is kept for tokens that are taken back.
Filled filled(const std::string& policy, std::size_t head_dim, std::size_t prompt = kPrompt,
              std::size_t tokens = kPrompt + 40) {
  const Geometry geometry{
      .layers = kLayers, .query_heads = 2 * kHeads, .kv_heads = kHeads, .head_dim = head_dim};
  CacheOptions options;
  options.rope = std::make_shared<Rope>(RopeParams{.dims = head_dim}, head_dim);
  const char* join = policy.find(':') == std::string::npos ? ":" : ",";
  Filled f{make_cache(policy + join + "rollback=0", geometry, options)};
  std::vector<test::Tokens> all;
  for (std::size_t l = 0; l < kLayers; ++l) {
    all.emplace_back(geometry, tokens, head_dim + l);
    test::prefill(f.cache->layer(l), all[l], 0, prompt);
  }
  f.cache->finish_prompt();
  for (std::size_t token = prompt; token < tokens; ++token)
    for (std::size_t l = 0; l < kLayers; ++l) test::decode(f.cache->layer(l), all[l], token);
  f.bytes = f.cache->bytes().held / (kLayers * kHeads);
  for (std::size_t l = 0; l < kLayers; ++l)
    for (std::size_t h = 0; h < kHeads; ++h) f.entries += f.cache->layer(l).entries(h);
  return f;
}

std::string with_bytes(const std::string& policy, std::size_t bytes) {
  return policy + (policy.find(':') == std::string::npos ? ":" : ",") + "budget=" + std::to_string(bytes) +
         "B";
}

TEST(BudgetInBytes, HoldsAsMuchAsFitsWhereAllHeadsAreAlike) {
  for (const char* policy :
       {"zeromerge", "zeromerge:storage=f32", "zeromerge:storage=q8", "zeromerge:storage=q4",
        "zeromerge:storage=q4,tail=31", "zeromerge:keys=q4,values=f16,tail=15", "streaming", "snapkv", "h2o",
        "best:heads=uniform", "best:heads=uniform,storage=bf16", "zeromerge:evict=8,storage=q4,tail=20",
        "zeromerge:storage=q4,precise=1%", "best:heads=uniform,precise=1%"})
    for (const std::size_t head_dim : {64, 96})
      for (const std::size_t bytes : {32000, 38000}) {
        const Filled f = filled(with_bytes(policy, bytes), head_dim);
        EXPECT_LE(f.bytes, bytes) << policy << ", heads of " << head_dim;
      }
}

// Against every count there is: no larger head would do, though a larger one may take less.
TEST(BudgetInBytes, IsUsedUpByHeadsThatAreAlike) {
  for (const char* text :
       {"zeromerge", "zeromerge:storage=q4", "zeromerge:storage=q4,tail=31", "best:heads=uniform",
        "zeromerge:keys=q4,values=f16,tail=15", "zeromerge:evict=8,storage=q4,tail=20"})
    detail::with_named_policy(text, [&](const auto& policy) {
      for (const bool precise : {false, true}) {
        const detail::HeadBytes bytes_of(policy, 64, true, precise);
        std::size_t before = 0;
        for (std::size_t bytes = 4000; bytes < 60000; bytes += 1700) {
          std::size_t most = 0;
          for (std::size_t entries = 0; entries < 2000; ++entries)
            if (bytes_of(entries) <= static_cast<double>(bytes)) most = entries;
          ASSERT_EQ(bytes_of.entries_within(bytes), most) << text << ", " << bytes << ", " << precise;
          ASSERT_GE(most, before) << text << ", " << bytes << ", " << precise;
          before = most;
        }
      }
    });
}

// Heads fill while tokens are decoded, and then hold what heads hold that a prompt has filled.
TEST(BudgetInBytes, IsHeldHoweverHeadsFill) {
  for (const char* policy :
       {"zeromerge:storage=q4,tail=20,budget=36000B", "zeromerge:storage=q4,tail=31,budget=38000B",
        "best:heads=uniform,budget=30000B", "zeromerge:budget=30000B",
        "zeromerge:storage=q4,precise=1%,tail=20,budget=36000B"})
    for (const std::size_t prompt : {20, 100, 399}) {
      const std::size_t limit = std::string(policy).find("36") != std::string::npos   ? 36000
                                : std::string(policy).find("38") != std::string::npos ? 38000
                                                                                      : 30000;
      EXPECT_LE(filled(policy, 64, prompt, 700).bytes, limit) << policy << " after " << prompt;
    }
}

// Last tokens that are a share of the mean: a head far below it must still hold them and one more.
TEST(BudgetInBytes, LeavesHeadsWhatTheyNeedInGroups) {
  const Geometry geometry{.layers = 4, .query_heads = 4, .kv_heads = 2, .head_dim = 32};
  for (const char* policy :
       {"zeromerge:heads=global,tail=10%,merge=drop,budget=300,storage=q4",
        "zeromerge:heads=two-stage,first=11%,tail=10%,budget=300,storage=q4",
        "adakv:tail=10%,budget=300,storage=q4", "pyramidkv:tail=10%,budget=300,storage=q4"}) {
    const auto cache = make_cache(policy, geometry);
    for (std::size_t l = 0; l < 4; ++l) {
      test::Tokens t(geometry, 900, l);
      for (float& x : t.q) x *= l % 2 == 0 ? 3.0f : 0.01f;
      test::prefill(cache->layer(l), t, 0, 900);
    }
    EXPECT_NO_THROW(cache->finish_prompt()) << policy;
    std::size_t sum = 0;
    for (std::size_t l = 0; l < 4; ++l)
      for (std::size_t h = 0; h < 2; ++h) sum += cache->layer(l).entries(h);
    EXPECT_EQ(sum, 2400u) << policy;
  }
}

TEST(BudgetInBytes, IsMetOnAverageWhereHeadsDiffer) {
  for (const char* policy : {"best", "best:tail=15", "best:storage=f16", "best:storage=q8", "best:first=60%",
                             "best:precise=1%", "best:precise=0", "zeromerge:heads=global", "adakv",
                             "pyramidkv", "zeromerge:heads=global,storage=q4"})
    for (const std::size_t bytes : {24000, 40000}) {
      const Filled f = filled(with_bytes(policy, bytes), 64);
      EXPECT_NEAR(static_cast<double>(f.bytes), static_cast<double>(bytes), 0.15 * static_cast<double>(bytes))
          << policy;
    }
}

TEST(BudgetInBytes, IsRefusedWhereNoHeadCanDoWithIt) {
  const Geometry geometry{.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 64};
  const std::string text = refusal([&] { make_cache("zeromerge:budget=1KiB,tail=10", geometry); });
  EXPECT_TRUE(contains(text, "1024 bytes a head hold")) << text;
  EXPECT_TRUE(contains(text, "raise the budget")) << text;
  for (const char* value :
       {"B", "1.5KiB", "0B", "-1B", "5%B", "24K", "24kib", "12GB", "1e3B", "KiB", "9999999999999999MiB"})
    EXPECT_TRUE(contains(refusal([&] { make_cache(std::string("zeromerge:budget=") + value, geometry); }),
                         "must be a whole number of bytes a head"))
        << value;
  EXPECT_TRUE(contains(refusal([&] { make_cache("zeromerge:tail=4KiB", geometry); }), "tail=4KiB"));
}

// Whether the keys of a cache that has seen a prompt are in 8 bits although the policy says 4; all heads are
// alike in this.
bool precise(AnyCache& cache, std::size_t kept_from) {
  bool all = true, none = true;
  for (std::size_t l = 0; l < kLayers; ++l)
    for (std::size_t h = 0; h < kHeads; ++h) {
      (cache.layer(l).state(h).division.precise ? none : all) = false;
      EXPECT_GE(cache.layer(l).entries(h), kept_from);
    }
  EXPECT_NE(all, none);
  return all;
}

// A share at the bound is precise for every length of the prompt; bytes that could not hold what a policy
// needs with keys in 8 bits hold it in 4.
TEST(PreciseKeys, DoNotDependOnRoundingNorMakeABudgetImpossible) {
  for (const std::size_t prompt : {301, 348}) {
    EXPECT_TRUE(precise(*filled("best:budget=20%", 64, prompt, prompt + 4).cache, 32)) << prompt;
    EXPECT_FALSE(precise(*filled("best:budget=5%", 64, prompt, prompt + 4).cache, 32)) << prompt;
  }
  EXPECT_FALSE(precise(*filled("best:budget=5%", 64, 0, 40).cache, 32));
  const Filled f = filled("best:heads=uniform,tail=160,budget=19000B", 64, 200, 240);
  EXPECT_FALSE(precise(*f.cache, 166));
  EXPECT_LE(f.bytes, 19000u);
  EXPECT_FALSE(precise(*filled("best:heads=error,error=0.01,budget=50%", 64).cache, 32));
}

TEST(PreciseKeys, AreStoredWhereTheBudgetKeepsAShareOfTheTokens) {
  for (const auto& [policy, expected] :
       std::vector<std::pair<const char*, bool>>{{"best:budget=25%", true},
                                                 {"best:budget=19%", false},
                                                 {"best:budget=25%,precise=0", false},
                                                 {"best:budget=25%,precise=30%", false},
                                                 {"best:budget=25%,keys=f16", false},
                                                 {"best:budget=25%,values=f16", true},
                                                 {"best:budget=25%,heads=uniform", true},
                                                 {"best:budget=110", true},
                                                 {"best:budget=60", false},
                                                 {"best:budget=20000B", true},
                                                 {"best:budget=8000B", false},
                                                 {"zeromerge:budget=50%,storage=q4", false},
                                                 {"zeromerge:budget=50%,storage=q4,precise=50%", true}})
    EXPECT_EQ(precise(*filled(policy, 64).cache, 32), expected) << policy;
}

// Against the values that came: a step of 8 bits and of 4.
TEST(PreciseKeys, AreNearerToWhatCame) {
  double error[2] = {};
  for (const bool precise : {false, true}) {
    const Geometry geometry{.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 64};
    const auto cache = make_cache(
        precise ? "zeromerge:budget=50%,storage=q4,precise=50%" : "zeromerge:budget=50%,storage=q4",
        geometry);
    const test::Tokens t(geometry, 300, 1);
    test::prefill(cache->layer(0), t, 0, 300);
    cache->finish_prompt();
    std::vector<float> key(64);
    for (std::size_t slot = 0; slot < cache->layer(0).entries(0); ++slot) {
      if (cache->layer(0).mass(0, slot) != 1.0f) continue;
      cache->layer(0).read_key(0, slot, key.data());
      const float* came = t.key(cache->layer(0).position(0, slot), 0);
      for (std::size_t d = 0; d < 64; ++d)
        error[precise] = std::max(error[precise], static_cast<double>(std::abs(key[d] - came[d])));
    }
  }
  EXPECT_LT(error[true], 0.03);
  EXPECT_GT(error[false], 0.1);
}

// A longer context for the same bytes packs what was precise, a cleared cache starts anew.
TEST(PreciseKeys, FollowTheLengthOfTheContext) {
  constexpr std::size_t kBudget = 20000;
  const Geometry geometry{.layers = kLayers, .query_heads = 4, .kv_heads = kHeads, .head_dim = 64};
  CacheOptions options;
  options.rope = std::make_shared<Rope>(RopeParams{.dims = 64}, 64);
  const auto cache = make_cache(with_bytes("best:heads=uniform", kBudget), geometry, options);
  const auto read = [&](std::size_t from, std::size_t tokens) {
    for (std::size_t l = 0; l < kLayers; ++l)
      test::prefill(cache->layer(l), test::Tokens(geometry, 1600, l), from, tokens);
    cache->finish_prompt();
    EXPECT_LE(cache->bytes().held / (kLayers * kHeads), kBudget);
  };
  read(0, 300);
  const std::size_t few = cache->layer(0).entries(0);
  EXPECT_TRUE(precise(*cache, 32));
  read(300, 1300);
  EXPECT_FALSE(precise(*cache, 32));
  EXPECT_GT(cache->layer(0).entries(0), few);
  cache->clear();
  read(0, 300);
  EXPECT_TRUE(precise(*cache, 32));
  EXPECT_EQ(cache->layer(0).entries(0), few);
}

// What settle() takes is what bytes_for() says, for every stored type.
TEST(BudgetInBytes, KnowsWhatAHeadTakes) {
  for (const StorageType type :
       {StorageType::f32, StorageType::f16, StorageType::bf16, StorageType::q8, StorageType::q4})
    for (const std::size_t loose : {0, 7, 31, 40})
      for (const std::size_t capacity : {40, 63, 64, 65, 127, 200, 1000}) {
        ByteLedger ledger;
        Head<any_storage> head(80, {.score = true, .mass = loose == 7}, &ledger, type, type);
        const std::vector<float> row(80, 0.5f);
        head.reserve(capacity);
        for (std::size_t j = 0; j < capacity; ++j) head.append(row.data(), row.data(), 0);
        head.settle(capacity + 1, {loose, loose});
        EXPECT_EQ(head.bytes_for(capacity, capacity + 1, {loose, loose}, Block::rounded), ledger.held())
            << storage_name(type) << ", " << capacity << " entries, " << loose << " loose";
        const double likely =
            static_cast<double>(head.bytes_for(capacity, capacity + 1, {loose, loose}, Block::likely));
        EXPECT_NEAR(likely, static_cast<double>(ledger.held()), 3.0 * 2048.0);
        head.settle(capacity + 1, {LooseRows::kAll, loose});
        EXPECT_EQ(head.bytes_for(capacity, capacity + 1, {LooseRows::kAll, loose}, Block::rounded),
                  ledger.held())
            << storage_name(type) << ", " << capacity << " entries, " << loose << " loose values";
      }
}

}  // namespace
}  // namespace zeromerge
