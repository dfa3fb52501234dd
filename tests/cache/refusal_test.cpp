// A call that is refused has changed nothing, in any of the layers that it is about.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/held.hpp"
#include "support/refusal.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::contains;
using test::refusal;
using test::Tokens;

constexpr std::size_t kPrompt = 90;
const Geometry kGeometry{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 16};

CacheOptions options() {
  CacheOptions o;
  o.rope = std::make_shared<Rope>(RopeParams{.dims = kGeometry.head_dim}, kGeometry.head_dim);
  return o;
}

template <class Cache>
std::vector<test::HeldLayer> state(Cache& cache) {
  std::vector<test::HeldLayer> all;
  for (std::size_t l = 0; l < kGeometry.layers; ++l) all.push_back(test::held_layer(cache.layer(l), 2));
  return all;
}

void expect_same(const std::vector<test::HeldLayer>& a, const std::vector<test::HeldLayer>& b,
                 const std::string& what) {
  for (std::size_t l = 0; l < a.size(); ++l)
    EXPECT_EQ(test::difference(a[l], b[l]), "") << what << ", layer " << l;
}

template <class Layer>
void read_again(Layer& layer, const Tokens& t) {
  layer.begin_second_reading();
  (void)test::prefill(layer, t, kPrompt, 20);
  layer.end_second_reading();
}

// Of two layers only the first has been read again; refit keeps queries, so that scores come at the end.
TEST(Refusal, AnEndThatOneLayerCannotRateEndsNone) {
  const Tokens t(kGeometry, 200, 1);
  for (const char* settings : {"budget=40,second=50%", "budget=40,merge=drop,second=100%,refit=16",
                               "budget=40,merge=drop,second=100%,heads=global",
                               "budget=40,merge=drop,second=100%,heads=adaptive,refit=16"}) {
    SCOPED_TRACE(settings);
    auto cache = test::make(settings, kGeometry, options());
    auto fine = test::make(settings, kGeometry, options());
    for (auto* one : {&cache, &fine})
      for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(one->layer(l), t, 0, kPrompt);
    read_again(cache.layer(0), t);
    const auto before = state(cache);
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(contains(refusal([&] { cache.finish_prompt(); }), "second reading"));
      expect_same(before, state(cache), "together");
      EXPECT_TRUE(contains(refusal([&] { cache.layer(1).finish_prompt(); }), "second reading"));
      EXPECT_THROW((void)test::decode(cache.layer(1), t, kPrompt), Error);
      expect_same(before, state(cache), "alone");
    }
    read_again(cache.layer(1), t);
    for (std::size_t l = 0; l < 2; ++l) read_again(fine.layer(l), t);
    for (auto* one : {&cache, &fine}) one->finish_prompt();
    expect_same(state(cache), state(fine), "once it can");
  }
}

TEST(Refusal, KvzipsScoresStayWhereItsReadingIsMissing) {
  const Tokens t(kGeometry, 200, 2);
  const auto cache = make_cache("kvzip:budget=40,refit=16", kGeometry, options());
  for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(cache->layer(l), t, 0, kPrompt);
  const auto scores = [&] {
    std::vector<float> all;
    for (std::size_t l = 0; l < 2; ++l)
      for (std::size_t h = 0; h < 2; ++h)
        for (std::size_t j = 0; j < kPrompt; ++j) all.push_back(cache->layer(l).score(h, j));
    return all;
  };
  const auto before = scores();
  EXPECT_THROW(cache->finish_prompt(), Error);
  EXPECT_TRUE(test::same_bits(scores(), before));
  EXPECT_THROW(cache->layer(0).finish_prompt(), Error);
  EXPECT_TRUE(test::same_bits(scores(), before));
}

TEST(Refusal, LayersOfDifferentLengthEndNoPromptThatTheyShare) {
  const Tokens t(kGeometry, 200, 3);
  for (const char* heads : {"two-stage", "pyramid", "global"}) {
    auto cache = test::make(std::string("budget=40,tail=10,heads=") + heads, kGeometry, options());
    (void)test::prefill(cache.layer(0), t, 0, kPrompt);
    (void)test::prefill(cache.layer(1), t, 0, kPrompt + 5);
    const auto before = state(cache);
    EXPECT_TRUE(contains(refusal([&] { cache.finish_prompt(); }),
                         "layers 0 and 1 share a budget and end prompts of 90 and 95 tokens"));
    expect_same(before, state(cache), heads);
    (void)test::prefill(cache.layer(0), t, kPrompt, 5);
    EXPECT_NO_THROW(cache.finish_prompt());
  }
}

TEST(Refusal, ARollbackWithOneForeignCheckpointLeavesAllLayers) {
  const Tokens t(kGeometry, 200, 4);
  const auto cache = make_cache("zeromerge:budget=40", kGeometry, options());
  const auto other = make_cache("zeromerge:budget=40", kGeometry, options());
  for (auto* one : {cache.get(), other.get()})
    for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(one->layer(l), t, 0, 50);
  auto mixed = cache->checkpoint();
  mixed[1] = std::move(other->checkpoint()[1]);
  auto twice = cache->checkpoint();
  twice[1] = cache->layer(0).checkpoint();
  auto none = cache->checkpoint();
  none[1].reset();
  for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(cache->layer(l), t, 50, 40);
  for (const auto* checkpoint : {&mixed, &twice, &none}) {
    EXPECT_THROW(cache->rollback(*checkpoint), Error);
    for (std::size_t l = 0; l < 2; ++l) EXPECT_EQ(cache->layer(l).tokens(), kPrompt);
  }
  auto composed = test::make("budget=40", kGeometry);
  auto foreign = test::make("budget=40", kGeometry);
  auto checkpoint = composed.checkpoint();
  checkpoint[1] = std::move(foreign.checkpoint()[1]);
  (void)test::prefill(composed.layer(0), t, 0, 50);
  EXPECT_THROW(composed.rollback(checkpoint), Error);
  EXPECT_EQ(composed.layer(0).tokens(), 50u);
}

TEST(Refusal, AnEmptyExecutorIsRefusedBeforeTokensGoIn) {
  CacheOptions o = options();
  o.executor = Executor{};
  EXPECT_TRUE(contains(refusal([&] { (void)make_cache("zeromerge", kGeometry, o); }), "executor is empty"));
  const Tokens t(kGeometry, 60, 5);
  const auto cache = make_cache("zeromerge:budget=40", kGeometry, options());
  EXPECT_TRUE(contains(refusal([&] { cache->set_executor({}); }), "executor is empty"));
  EXPECT_NO_THROW((void)test::prefill(cache->layer(0), t, 0, 40)) << "the one before still runs";
}

// ---- what outlives its cache

TEST(Refusal, ACheckpointThatOutlivesItsCacheIsNoOtherCaches) {
  const Tokens t(kGeometry, 60, 6);
  std::vector<std::vector<std::unique_ptr<AnyCheckpoint>>> old;
  for (int i = 0; i < 20; ++i) {  // one of them would be made where an earlier one was
    const auto cache = make_cache("zeromerge:budget=40", kGeometry, options());
    (void)test::prefill(cache->layer(0), t, 0, 40);
    for (const auto& checkpoint : old) EXPECT_THROW(cache->rollback(checkpoint), Error);
    old.push_back(cache->checkpoint());
  }
  EXPECT_EQ(old[0][0]->tokens(), 40u);
  EXPECT_GT(old[0][0]->bytes(), 0u);
}

static_assert(!std::is_copy_constructible_v<LayerCache<test::ZeroMergeOf<>>>, "auto layer = cache.layer(0)");
static_assert(!std::is_copy_constructible_v<KvCache<test::ZeroMergeOf<>>>);
static_assert(!std::is_convertible_v<const Checkpoint<Head<float>>&, Checkpoint<Head<float>>>);
static_assert(std::is_abstract_v<AnyLayer> && std::is_abstract_v<AnyCheckpoint>);

}  // namespace
}  // namespace zeromerge
