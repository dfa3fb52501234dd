// Budgets in bytes: what is held is what was asked for.
#include "zeromerge/cache/ask_budget.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "support/sequence.hpp"

namespace zeromerge {
namespace {

constexpr std::size_t kLayers = 3, kHeads = 2, kPrompt = 400;

template <class F>
std::string refusal(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}
bool contains(const std::string& text, const char* part) { return text.find(part) != text.npos; }

struct Filled {
  std::unique_ptr<AnyCache> cache;
  std::size_t bytes = 0;    // of a head
  std::size_t entries = 0;  // of all heads
};

// A cache after a prompt and enough tokens that no head grows any more.
Filled filled(const std::string& policy, std::size_t head_dim) {
  const Geometry geometry{
      .layers = kLayers, .query_heads = 2 * kHeads, .kv_heads = kHeads, .head_dim = head_dim};
  CacheOptions options;
  options.rope = std::make_shared<Rope>(RopeParams{.dims = head_dim}, head_dim);
  Filled f{make_cache(policy, geometry, options)};
  std::vector<test::Tokens> all;
  for (std::size_t l = 0; l < kLayers; ++l) {
    all.emplace_back(geometry, kPrompt + 40, head_dim + l);
    test::prefill(f.cache->layer(l), all[l], 0, kPrompt);
  }
  f.cache->finish_prompt();
  for (std::size_t token = kPrompt; token < kPrompt + 40; ++token)
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
        "best:heads=uniform", "best:heads=uniform,storage=bf16", "zeromerge:evict=8,storage=q4,tail=20"})
    for (const std::size_t head_dim : {64, 96})
      for (const std::size_t bytes : {32000, 38000}) {
        const Filled f = filled(with_bytes(policy, bytes), head_dim);
        EXPECT_LE(f.bytes, bytes) << policy << ", heads of " << head_dim;
        if (contains(policy, "evict")) continue;  // what it holds goes up and down with every block
        const std::size_t more = f.entries / (kLayers * kHeads) + 2;
        const std::string text = policy;
        const Filled one = filled(
            text + (text.find(':') == text.npos ? ":" : ",") + "budget=" + std::to_string(more), head_dim);
        EXPECT_GT(one.bytes, bytes) << policy << ", heads of " << head_dim << ": " << more << " fit as well";
      }
}

TEST(BudgetInBytes, IsMetOnAverageWhereHeadsDiffer) {
  for (const char* policy :
       {"best", "best:tail=15", "best:storage=f16", "best:storage=q8", "best:first=60%",
        "zeromerge:heads=global", "adakv", "pyramidkv", "zeromerge:heads=global,storage=q4"})
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
  for (const char* value : {"B", "1.5KiB", "0B", "-1B", "5%B", "12GB", "1e3B", "KiB", "9999999999999999MiB"})
    EXPECT_TRUE(contains(refusal([&] { make_cache(std::string("zeromerge:budget=") + value, geometry); }),
                         "must be a whole number of bytes a head"))
        << value;
  EXPECT_TRUE(contains(refusal([&] { make_cache("zeromerge:tail=4KiB", geometry); }), "tail=4KiB"));
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
        head.settle(capacity + 1, loose);
        EXPECT_EQ(head.bytes_for(capacity, capacity + 1, loose, Block::rounded), ledger.held())
            << storage_name(type) << ", " << capacity << " entries, " << loose << " loose";
        const double likely =
            static_cast<double>(head.bytes_for(capacity, capacity + 1, loose, Block::likely));
        EXPECT_NEAR(likely, static_cast<double>(ledger.held()), 3.0 * 2048.0);
      }
}

}  // namespace
}  // namespace zeromerge
