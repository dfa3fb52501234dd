// A fork holds what its original holds, and neither knows what becomes of the other.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/refusal.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::Tokens;

const Geometry kGeometry{.layers = 2,
                         .shapes = {{.query_heads = 6, .kv_heads = 2, .head_dim = 32},
                                    {.query_heads = 3, .kv_heads = 3, .head_dim = 48}}};

CacheOptions options(std::size_t sequences = 1) {
  CacheOptions o;
  o.sequences = sequences;
  for (std::size_t l = 0; l < kGeometry.layers; ++l) {
    const std::size_t dim = kGeometry.shape(l).head_dim;
    o.ropes.push_back(std::make_shared<Rope>(RopeParams{.dims = dim}, dim));
  }
  return o;
}

std::vector<Tokens> model(std::uint64_t seed, std::size_t count) {
  std::vector<Tokens> all;
  for (std::size_t l = 0; l < kGeometry.layers; ++l) {
    const LayerShape s = kGeometry.shape(l);
    all.emplace_back(Geometry{.query_heads = s.query_heads, .kv_heads = s.kv_heads, .head_dim = s.head_dim},
                     count, seed + l);
  }
  return all;
}

// Everything a cache tells of a sequence, as one list of numbers.
std::vector<float> held(AnyCache& cache, std::size_t sequence = 0) {
  std::vector<float> all;
  for (std::size_t l = 0; l < kGeometry.layers; ++l) {
    const AnyLayer& layer = cache.layer(l, sequence);
    std::vector<float> row(layer.shape().head_dim);
    all.push_back(static_cast<float>(layer.tokens()));
    all.push_back(layer.in_prompt() ? 1.0f : 0.0f);
    for (std::size_t h = 0; h < layer.shape().kv_heads; ++h)
      for (std::size_t j = 0; j < layer.entries(h); ++j) {
        layer.read_key(h, j, row.data());
        all.insert(all.end(), row.begin(), row.end());
        layer.read_value(h, j, row.data());
        all.insert(all.end(), row.begin(), row.end());
        all.insert(all.end(),
                   {layer.score(h, j), layer.mass(h, j), static_cast<float>(layer.position(h, j))});
      }
  }
  return all;
}

std::vector<float> prompt(AnyCache& cache, const std::vector<Tokens>& t, std::size_t first, std::size_t n,
                          std::size_t sequence = 0) {
  std::vector<float> all;
  for (std::size_t l = 0; l < kGeometry.layers; ++l)
    for (const float x : test::prefill(cache.layer(l, sequence), t[l], first, n)) all.push_back(x);
  return all;
}
std::vector<float> steps(AnyCache& cache, const std::vector<Tokens>& t, std::size_t first, std::size_t n,
                         std::size_t sequence = 0) {
  std::vector<float> all;
  for (std::size_t token = first; token < first + n; ++token)
    for (std::size_t l = 0; l < kGeometry.layers; ++l)
      for (const float x : test::decode(cache.layer(l, sequence), t[l], token)) all.push_back(x);
  return all;
}

const std::vector<std::string> kPolicies = {"full:storage=q8",
                                            "full:storage=q4",
                                            "zeromerge:budget=40,residual=3",
                                            "zeromerge:budget=40,residual=3,storage=q4",
                                            "h2o:budget=40",
                                            "best:budget=40",
                                            "best:budget=40,storage=f16,hold=8",
                                            "keydiff:budget=40",
                                            "zeromerge:budget=40,heads=pyramid,storage=f32",
                                            "zeromerge:budget=40,merge=nearest,evict=16"};

TEST(Fork, HoldsTheSameBitsAndTheSameFollows) {
  const auto t = model(1, 400);
  for (const std::string& policy : kPolicies) {
    SCOPED_TRACE(policy);
    const auto cache = make_cache(policy, kGeometry, options());
    prompt(*cache, t, 0, 90);
    steps(*cache, t, 90, 20);
    const auto fork = cache->fork();
    EXPECT_EQ(fork->spec(), cache->spec());
    EXPECT_EQ(fork->geometry().shapes, cache->geometry().shapes);
    EXPECT_TRUE(test::same_bits(held(*fork), held(*cache)));
    EXPECT_EQ(fork->bytes().held, cache->bytes().held);
    const auto before = held(*cache);
    const auto expected = steps(*fork, t, 110, 60);
    prompt(*fork, t, 170, 30);
    steps(*fork, t, 200, 30);
    EXPECT_TRUE(test::same_bits(held(*cache), before)) << "the fork goes on alone";
    EXPECT_TRUE(test::same_bits(steps(*cache, t, 110, 60), expected));
    prompt(*cache, t, 170, 30);
    steps(*cache, t, 200, 30);
    EXPECT_TRUE(test::same_bits(held(*fork), held(*cache)));
  }
}

TEST(Fork, WithinAPromptKeepsWhatItsEndNeeds) {
  const auto t = model(2, 300);
  for (const std::string& policy : kPolicies) {
    SCOPED_TRACE(policy);
    const auto cache = make_cache(policy, kGeometry, options());
    prompt(*cache, t, 0, 100);
    const auto fork = cache->fork();
    EXPECT_TRUE(fork->layer(1).in_prompt());
    EXPECT_TRUE(test::same_bits(prompt(*fork, t, 100, 30), prompt(*cache, t, 100, 30)));
    EXPECT_TRUE(test::same_bits(steps(*fork, t, 130, 30), steps(*cache, t, 130, 30)));
    EXPECT_TRUE(test::same_bits(held(*fork), held(*cache)));
  }
}

TEST(Fork, OfAPromptThatHalfOfTheLayersHaveEndedEndsItLikeTheOriginal) {
  const auto t = model(3, 300);
  for (const char* policy : {"best:budget=40,storage=f16", "zeromerge:heads=pyramid,budget=40"}) {
    const auto cache = make_cache(policy, kGeometry, options());
    prompt(*cache, t, 0, 100);
    cache->layer(1).finish_prompt();
    const auto fork = cache->fork();
    cache->layer(0).finish_prompt();
    fork->finish_prompt();
    EXPECT_TRUE(test::same_bits(held(*fork), held(*cache))) << policy;
  }
}

TEST(Fork, KeepsASecondReadingAndSinkLogits) {
  const auto t = model(4, 300);
  const auto cache = make_cache("kvzip:budget=40", kGeometry, options());
  cache->layer(0).set_sink_logits(std::vector<float>{1.0f, 2.0f, 3.0f, 1.0f, 2.0f, 3.0f});
  prompt(*cache, t, 0, 90);
  for (std::size_t l = 0; l < kGeometry.layers; ++l) {
    cache->layer(l).begin_second_reading();
    test::prefill(cache->layer(l), t[l], 90, 20);
    cache->layer(l).end_second_reading();
  }
  const auto fork = cache->fork();
  for (auto* one : {cache.get(), fork.get()}) one->finish_prompt();
  EXPECT_TRUE(test::same_bits(held(*fork), held(*cache)));
  EXPECT_TRUE(test::same_bits(steps(*fork, t, 110, 5), steps(*cache, t, 110, 5)));
}

TEST(Fork, TakesTheSequenceThatIsAskedFor) {
  const auto t = model(5, 200), other = model(6, 200);
  const auto cache = make_cache("zeromerge:budget=40", kGeometry, options(2));
  prompt(*cache, t, 0, 60, 0);
  prompt(*cache, other, 0, 80, 1);
  const auto fork = cache->fork(1);
  EXPECT_TRUE(test::same_bits(held(*fork), held(*cache, 1)));
  EXPECT_TRUE(test::contains(test::refusal([&] { (void)cache->fork(2); }), "sequence 2"));
}

TEST(Fork, CountsItsOwnBytesAndOutlivesItsOriginal) {
  const auto t = model(7, 200);
  auto cache = make_cache("zeromerge:budget=40", kGeometry, options());
  prompt(*cache, t, 0, 90);
  cache->finish_prompt();
  const std::size_t bytes = cache->bytes().held;
  auto fork = cache->fork();
  EXPECT_EQ(cache->bytes().held, bytes);
  EXPECT_EQ(fork->bytes().held, bytes);
  cache.reset();
  steps(*fork, t, 90, 50);
  fork->clear();
  EXPECT_EQ(fork->bytes().held, 0u);
}

TEST(Fork, DoesNotTakeItsOriginalsCheckpoints) {
  const auto t = model(8, 100);
  const auto cache = make_cache("zeromerge:budget=40", kGeometry, options());
  prompt(*cache, t, 0, 60);
  const auto checkpoint = cache->checkpoint();
  const auto fork = cache->fork();
  EXPECT_THROW(fork->rollback(checkpoint), Error);
  EXPECT_NO_THROW(cache->rollback(checkpoint));
}

}  // namespace
}  // namespace zeromerge
