// The text that chooses a policy, and the cache behind it. The only place that compiles every composition.
#include "zeromerge/cache/presets.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/sequence.hpp"
#include "support/temporary_file.hpp"

namespace zeromerge {
namespace {

using test::TemporaryFile;
using test::Tokens;

const Geometry kGeometry{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 24};

std::unique_ptr<AnyCache> made(const std::string& text, CacheOptions options = {}) {
  return make_cache(text, kGeometry, std::move(options));
}

std::string refusal(const std::string& text) {
  try {
    (void)made(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void expect_refusal(const std::string& text, const std::string& part) {
  const std::string found = refusal(text);
  EXPECT_NE(found.find(part), std::string::npos) << text << ": '" << found << "'";
}

std::size_t entries_after(const std::string& text, std::size_t prompt) {
  const Tokens t(kGeometry, prompt, 1);
  auto cache = made(text);
  (void)test::prefill(cache->layer(0), t, 0, prompt);
  cache->layer(0).finish_prompt();
  return cache->layer(0).entries(0);
}

// Entries of all heads of all layers, which have seen the same prompt.
std::vector<std::size_t> sizes_after(const std::string& text, std::size_t prompt) {
  auto cache = made(text, {.rope = std::make_shared<Rope>(RopeParams{.dims = 24}, 24)});
  const Tokens t(kGeometry, prompt, 6);
  for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(cache->layer(l), t, 0, prompt);
  cache->finish_prompt();
  std::vector<std::size_t> sizes;
  for (std::size_t l = 0; l < 2; ++l)
    for (std::size_t h = 0; h < kGeometry.kv_heads; ++h) sizes.push_back(cache->layer(l).entries(h));
  return sizes;
}

TEST(Presets, EveryGoodTextMakesACache) {
  for (const char* text : {"full",
                           "full:storage=bf16",
                           "full:keys=f32,values=f16",
                           "zeromerge",
                           "zeromerge:budget=5%",
                           "zeromerge:budget=0.05",
                           "zeromerge:budget=410",
                           "zeromerge:tail=160,budget=410",
                           "zeromerge:sinks=0",
                           "zeromerge:residual=10%",
                           "zeromerge:alpha=1,decay=0.9,score=exact",
                           "zeromerge:importance=mean",
                           "zeromerge:heads=adaptive,floor=10%",
                           "zeromerge:merge=drop",
                           "zeromerge:update=sum,metric=l2",
                           "zeromerge:least=0",
                           "zeromerge:heads=adaptive,local=60",
                           "zeromerge:bounded=1",
                           "zeromerge:reference=1,budget=60",
                           "zeromerge:storage=f32",
                           "zeromerge:keys=f16,values=bf16",
                           "zeromerge:keys=q4,values=q8",
                           "h2o",
                           "h2o:budget=20%,storage=q4"}) {
    EXPECT_EQ(refusal(text), "") << text;
    EXPECT_EQ(made(text)->spec(), text);
  }
}

TEST(Presets, BadTextsAreRefusedWithWhatIsValid) {
  expect_refusal("", "expected name:key=value");
  expect_refusal("zeromerg", "unknown name 'zeromerg'; there are full, streaming, zeromerge, h2o");
  expect_refusal("full:budget=5%", "unknown key 'budget'; full knows storage, keys, values");
  expect_refusal("zeromerge:budgte=5%", "zeromerge knows budget, tail, sinks, residual");
  expect_refusal("zeromerge:budget=0", "a budget of 0 keeps nothing");
  expect_refusal("zeromerge:budget=0%", "a budget of 0 keeps nothing");
  expect_refusal("zeromerge:budget=120%", "must be a share");
  expect_refusal("zeromerge:budget=6", "6 entries per head are too few for 4 sinks, 2 recent and 1 residual");
  expect_refusal("zeromerge:tail=-1", "must be a share");
  expect_refusal("zeromerge:sinks=1.5", "whole number");
  expect_refusal("zeromerge:alpha=-1", "must be a number in [0, 100]");
  expect_refusal("zeromerge:decay=0", "decay=0 must be a number");
  expect_refusal("zeromerge:decay=1.5", "decay=1.5 must be a number");
  expect_refusal("zeromerge:score=fast", "is not one of tail, exact");
  expect_refusal("zeromerge:importance=x", "is not one of decayed, mean");
  expect_refusal("zeromerge:heads=x", "is not one of uniform, adaptive, profile");
  expect_refusal("zeromerge:floor=7,heads=adaptive", "floor must be a share");
  expect_refusal("zeromerge:merge=x", "is not one of residual, drop");
  expect_refusal("zeromerge:update=x", "is not one of max, sum");
  expect_refusal("zeromerge:metric=x", "is not one of dot, l2");
  expect_refusal("zeromerge:bounded=2", "is not one of 0, 1");
  expect_refusal("zeromerge:storage=int8", "is not one of f32, f16, bf16");
  expect_refusal("zeromerge:heads=profile", "heads=profile needs profile=FILE");
  expect_refusal("zeromerge:heads=uniform,profile=x", "profile= needs heads=profile or heads=two-stage");
  expect_refusal("zeromerge:profile=/no/such/file", "cannot read the file '/no/such/file'");
  expect_refusal("zeromerge:reference=1,sinks=4", "the reference has no sinks");
  expect_refusal("zeromerge:reference=1,refit=64",
                 "the reference knows no score of whole prompts, no refit and no blocks");
  expect_refusal("zeromerge:replay=50", "replay must be a share");
  expect_refusal("zeromerge:precise=5", "precise must be a share of the tokens");
  expect_refusal("zeromerge:replay=50%", "give the model's RoPE");
  expect_refusal("zeromerge:refit=64,bounded=1", "give the model's RoPE");
  expect_refusal("h2o:reference=1", "reference= is for zeromerge alone");
  expect_refusal("zeromerge:evict=0", "evict=0 must be a number");
  expect_refusal("zeromerge:window=50%,far=50%", "far is the second score of whole prompts");
  expect_refusal("keydiff:norm=1", "keydiff's cosines may be negative");
  expect_refusal("h2o:norm=1", "norm=1 multiplies a score of whole prompts and none is chosen");
  expect_refusal("streaming:tail=5", "streaming knows budget, sinks, least");
  expect_refusal("streaming:budget=5", "5 entries per head are too few");
}

TEST(Presets, AFloorThatLeavesAProfileNothingToShareOutIsRefused) {
  const TemporaryFile file("zeromerge-profile 1 layers 2 kv_heads 2 budget 0.1 1 3 2 2");
  expect_refusal(
      "best:first=45%,profile=" + file.path(),
      "floor=45% leaves the profile nothing of first=45% to share out; lower floor or raise first");
  EXPECT_EQ(refusal("zeromerge:heads=two-stage,first=45%,floor=20%,profile=" + file.path()), "");
}

TEST(Presets, AWrongValueIsRefusedAlsoWhereItIsNotUsed) {
  expect_refusal("zeromerge:error=x", "error=x must be a number");
  expect_refusal("zeromerge:merge=drop,alpha=x", "alpha=x must be a number");
  expect_refusal("snapkv:residual=x", "residual=x must be a share");
  expect_refusal("zeromerge:merge=nearest,metric=x", "is not one of dot, l2");
}

TEST(Presets, TheBudgetIsAShareOfThePromptOrACount) {
  EXPECT_EQ(entries_after("zeromerge", 1000), 50u);
  EXPECT_EQ(entries_after("zeromerge:budget=10%", 1000), 100u);
  EXPECT_EQ(entries_after("zeromerge:budget=77", 1000), 77u);
  EXPECT_EQ(entries_after("zeromerge:budget=5%", 300), 32u);  // least=32
  EXPECT_EQ(entries_after("zeromerge:budget=5%,least=0", 300), 15u);
  EXPECT_EQ(entries_after("zeromerge:budget=20", 300), 20u);  // a count is taken as it is
  EXPECT_EQ(entries_after("zeromerge:budget=10%,reference=1", 200), 20u);
  EXPECT_EQ(entries_after("full", 300), 300u);
}

// Heads that others leave little get what lies near: 6 % of the prompt, at most 60 % of the mean.
TEST(Presets, LocalIsAShareOfThePrompt) {
  const auto smallest = [](const std::string& text, std::size_t tokens) {
    const auto all = sizes_after(text + ",storage=f16", tokens);
    return *std::min_element(all.begin(), all.end());
  };
  const TemporaryFile file("zeromerge-profile 1 layers 2 kv_heads 2 budget 0.1 0.001 2 1 1");
  const std::string profile = "best:heads=profile,floor=0,profile=" + file.path();
  EXPECT_EQ(smallest(profile + ",budget=100", 1000), 60u);
  EXPECT_EQ(smallest(profile + ",budget=80", 1000), 48u);
  EXPECT_EQ(smallest(profile + ",budget=250", 1000), 60u);
  EXPECT_EQ(smallest(profile + ",budget=100,local=45", 1000), 45u);
}

TEST(Presets, BestWithAProfileGivesEightyFivePercentByItAndNoHeadLessThanFortyFive) {
  const TemporaryFile file("zeromerge-profile 1 layers 2 kv_heads 2 budget 0.1 0.001 2 1 1");
  const std::string text = "best:budget=20%,profile=" + file.path();
  const auto sizes = sizes_after(text, 1000);
  EXPECT_EQ(sizes, sizes_after(text + ",heads=two-stage,replay=100%,first=85%,floor=45%", 1000));
  for (const char* other : {",first=70%", ",floor=30%", ",heads=profile"})
    EXPECT_NE(sizes, sizes_after(text + other, 1000)) << other;
  EXPECT_NE(sizes, sizes_after("best:budget=20%", 1000));
}

TEST(Presets, AProfileGivesTheHeadsTheirShares) {
  const TemporaryFile file("zeromerge-profile 1 layers 2 kv_heads 2 budget 0.1 1 3 2 2");
  const Tokens t(kGeometry, 1000, 2);
  auto cache = made("zeromerge:budget=10%,floor=0,least=0,profile=" + file.path());
  for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(cache->layer(l), t, 0, 1000);
  cache->finish_prompt();
  EXPECT_EQ(cache->layer(0).entries(0), 50u);
  EXPECT_EQ(cache->layer(0).entries(1), 150u);
  EXPECT_EQ(cache->layer(1).entries(0), 100u);
  EXPECT_EQ(cache->layer(1).entries(1), 100u);
}

TEST(Presets, AProfileOfAnotherModelIsRefusedBeforeAnythingChanges) {
  const TemporaryFile file("zeromerge-profile 1 layers 1 kv_heads 2 budget 0.1 1 3");
  const Tokens t(kGeometry, 100, 3);
  for (const char* bounded : {"0", "1"}) {
    auto cache = made("zeromerge:budget=40%,bounded=" + std::string(bounded) + ",profile=" + file.path());
    (void)test::prefill(cache->layer(0), t, 0, 100);
    cache->layer(0).finish_prompt();
    if (bounded[0] == '1') {
      EXPECT_THROW((void)test::prefill(cache->layer(1), t, 0, 100), Error);
      EXPECT_EQ(cache->layer(1).tokens(), 0u);
    } else {
      (void)test::prefill(cache->layer(1), t, 0, 100);
      EXPECT_THROW(cache->layer(1).finish_prompt(), Error);
      EXPECT_TRUE(cache->layer(1).in_prompt());
      EXPECT_EQ(cache->layer(1).entries(0), 100u);
      cache->clear();
      for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(cache->layer(l), t, 0, 100);
      EXPECT_THROW(cache->finish_prompt(), Error);
      EXPECT_TRUE(cache->layer(0).in_prompt()) << "none has ended";
      EXPECT_EQ(cache->layer(0).entries(0), 100u);
    }
  }
}

// The facade adds nothing: the same bits as the composition it stands for.
template <class K, class V>
void expect_same_as_composed(const std::string& settings, const std::string& storage) {
  SCOPED_TRACE(settings + storage);
  const Tokens t(kGeometry, 120, 4);
  auto any = made("zeromerge:" + settings + storage);
  auto composed = test::make<K, V>(settings, kGeometry);
  AnyLayer& layer = any->layer(0);
  const auto& twin = composed.layer(0);
  EXPECT_TRUE(test::same_bits(test::run(layer, t, 100), test::run(composed.layer(0), t, 100)));
  EXPECT_EQ(layer.tokens(), twin.tokens());
  EXPECT_EQ(layer.in_prompt(), twin.in_prompt());
  EXPECT_EQ(layer.bytes(), twin.bytes());
  EXPECT_EQ(any->bytes().held, composed.bytes().held);
  EXPECT_EQ(any->bytes().peak, composed.bytes().peak);
  std::vector<float> row(24);
  for (std::size_t h = 0; h < 2; ++h) {
    const test::HeldHead head = test::held(twin.head(h));
    ASSERT_EQ(layer.entries(h), head.size);
    ASSERT_EQ(layer.head_bytes(h), head.bytes);
    for (std::size_t j = 0; j < head.size; ++j) {
      layer.read_key(h, j, row.data());
      ASSERT_TRUE(std::equal(row.begin(), row.end(), head.key.begin() + static_cast<std::ptrdiff_t>(j * 24)));
      layer.read_value(h, j, row.data());
      ASSERT_TRUE(
          std::equal(row.begin(), row.end(), head.value.begin() + static_cast<std::ptrdiff_t>(j * 24)));
      ASSERT_EQ(layer.position(h, j), head.position[j]);
      ASSERT_EQ(layer.score(h, j), head.score[j]);
      ASSERT_EQ(layer.mass(h, j), head.mass.empty() ? 1.0f : head.mass[j]);
    }
  }
}

TEST(AnyCache, EqualsTheCompositionItStandsForBitForBit) {
  expect_same_as_composed<f16, f16>("budget=40,residual=2", "");
  expect_same_as_composed<float, float>("budget=40,residual=2", ",storage=f32");
  expect_same_as_composed<float, bf16>("budget=40,merge=drop", ",keys=f32,values=bf16");
}

TEST(AnyCache, WhatAPolicyDoesNotKeepReadsAsItsNeutralValue) {
  const Tokens t(kGeometry, 40, 5);
  auto cache = made("full:storage=f32");
  (void)test::run(cache->layer(0), t, 30);
  EXPECT_EQ(cache->layer(0).mass(1, 39), 1.0f);
  EXPECT_EQ(cache->layer(0).score(1, 39), 0.0f);
  EXPECT_EQ(cache->layer(0).position(1, 39), 39u);
}

TEST(AnyCache, PassesOnWhatItIsAsked) {
  const Tokens t(kGeometry, 60, 6);
  CacheOptions options;
  options.sequences = 2;
  auto cache = made("zeromerge:budget=40", options);
  cache->set_executor(threads(2));
  EXPECT_EQ(cache->geometry().head_dim, 24u);
  EXPECT_THROW((void)cache->layer(2), Error);
  EXPECT_THROW((void)cache->layer(0, 2), Error);
  AnyLayer& layer = cache->layer(1, 1);
  layer.extend(t.keys(0, 10), t.values(0, 10));
  (void)test::prefill(layer, t, 10, 20);
  EXPECT_EQ(layer.tokens(), 30u);
  EXPECT_TRUE(layer.can_truncate());
  layer.truncate(25);
  EXPECT_EQ(layer.tokens(), 25u);
  EXPECT_EQ(cache->layer(0, 1).tokens(), 0u);
  EXPECT_EQ(cache->layer(1, 0).tokens(), 0u);
  EXPECT_GT(cache->workspace_bytes(), 0u);
  cache->finish_prompt(1);
  EXPECT_FALSE(layer.in_prompt());
  layer.clear();
  EXPECT_EQ(layer.entries(0), 0u);
  (void)test::prefill(layer, t, 0, 5);
  cache->clear(1);
  EXPECT_EQ(cache->bytes().held, 0u);
}

}  // namespace
}  // namespace zeromerge
