// Layers whose keys and values are stored in any two types: outputs against the textbook over what is held,
// with soft-cap, sinks and merged entries, and the same bits for any number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/isa.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::HeldHead;
using test::Random;
using test::Tokens;

constexpr StorageType kTypes[] = {StorageType::f32, StorageType::f16, StorageType::bf16, StorageType::q8,
                                  StorageType::q4};

using AnyStored = KvCache<test::ZeroMergeOf<any_storage>>;

AnyStored make(const std::string& settings, const Geometry& g, StorageType keys, StorageType values,
               CacheOptions options = {}, double precise_from = 0.0) {
  auto policy = test::policy<any_storage>(settings);
  policy.precise_from = precise_from;
  policy.key_type = keys;
  policy.value_type = values;
  return AnyStored(g, policy, std::move(options));
}

// What the instructions in use round beside what is stored: queries and weights to 8 bits or to bf16.
double tolerance_of(StorageType keys, StorageType values) {
  double most = 2e-5;
  for (const StorageType type : {keys, values}) {
    if ((type == StorageType::q8 || type == StorageType::q4) && isa() >= Isa::avx512vnni)
      most = std::max(most, 4e-2);
    if (type == StorageType::bf16 && isa() >= Isa::avx512bf16) most = std::max(most, 4e-2);
    if (type == StorageType::q4) most = std::max(most, 1e-4);  // minima and codes are added up apart
  }
  return most;
}

// One token's attention by the layer, changing nothing, against the textbook over the entries held.
void expect_attends_to_what_it_holds(LayerCache<test::ZeroMergeOf<any_storage>>& layer, const Tokens& t,
                                     std::size_t token, const std::vector<float>& sinks, double tolerance) {
  const Geometry& g = t.g;
  std::vector<float> out(g.query_heads * g.head_dim), lse(g.query_heads);
  layer.attend(t.queries(token, 1), out_rows(out.data(), 1, g.query_heads, g.head_dim), lse.data());
  for (std::size_t h = 0; h < g.query_heads; ++h) {
    const HeldHead head = test::held(layer.head(h / g.group()));
    test::Attention expected = test::attention(
        t.query(token, h), g.head_dim, head.size, static_cast<double>(g.attention_scale()),
        static_cast<double>(g.logit_softcap), [&](std::size_t j) { return head.key.data() + j * g.head_dim; },
        [&](std::size_t j) { return head.value.data() + j * g.head_dim; },
        [&](std::size_t j) { return head.bias.empty() ? 0.0f : head.bias[j]; });
    if (!sinks.empty()) {
      const double with = expected.lse + std::log1p(std::exp(static_cast<double>(sinks[h]) - expected.lse));
      for (double& x : expected.out) x *= std::exp(expected.lse - with);
      expected.lse = with;
    }
    ASSERT_NEAR(lse[h], expected.lse, tolerance * 2.0) << "head " << h;
    for (std::size_t d = 0; d < g.head_dim; ++d)
      ASSERT_NEAR(out[h * g.head_dim + d], expected.out[d], tolerance) << "head " << h << " dim " << d;
  }
}

class StoredLayers : public test::EachIsa {};
INSTANTIATE_TEST_SUITE_P(Levels, StoredLayers, testing::ValuesIn(test::available_isas()), test::isa_of);

void check_pair(StorageType keys, StorageType values, const Geometry& g, std::size_t prompt, bool with_sinks,
                double precise_from = 0.0) {
  SCOPED_TRACE(std::string(storage_name(keys)) + "/" + storage_name(values) + " " +
               std::to_string(g.query_heads) + "/" + std::to_string(g.kv_heads) + "x" +
               std::to_string(g.head_dim));
  const Tokens t(g, prompt + 60, prompt);
  auto cache = make("budget=48,residual=3,tail=16", g, keys, values, {}, precise_from);
  auto& layer = cache.layer(0);
  std::vector<float> sinks;
  if (with_sinks) {
    Random random(3);
    sinks = test::normals(random, g.query_heads);
    layer.set_sink_logits(sinks);
  }
  test::prefill(layer, t, 0, prompt / 2);
  test::prefill(layer, t, prompt / 2, prompt - prompt / 2);
  const double tolerance = tolerance_of(keys, values);
  expect_attends_to_what_it_holds(layer, t, prompt, sinks, tolerance);
  for (std::size_t token = prompt; token + 1 < t.count; ++token) {
    test::decode(layer, t, token);
    if (token % 7 == 0) expect_attends_to_what_it_holds(layer, t, token + 1, sinks, tolerance);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_LE(layer.head(0).size(), 48u);
}

TEST_P(StoredLayers, AttendToWhatTheyHoldInEveryPairOfTypes) {
  for (const StorageType keys : kTypes)
    for (const StorageType values : kTypes)
      check_pair(keys, values, {.query_heads = 6, .kv_heads = 2, .head_dim = 24, .logit_softcap = 3.0f}, 90,
                 true);
}

TEST_P(StoredLayers, AttendToWhatTheyHoldInEveryGeometry) {
  const Geometry shapes[] = {{.query_heads = 3, .kv_heads = 3, .head_dim = 64},
                             {.query_heads = 9, .kv_heads = 3, .head_dim = 80},
                             {.query_heads = 8, .kv_heads = 2, .head_dim = 96},
                             {.query_heads = 8, .kv_heads = 1, .head_dim = 128},
                             {.query_heads = 2, .kv_heads = 1, .head_dim = 256}};
  for (const StorageType type : kTypes)
    for (const Geometry& g : shapes) check_pair(type, type, g, 70, false);
}

TEST_P(StoredLayers, AttendToKeysThatStayInBytes) {
  for (const StorageType values : {StorageType::q4, StorageType::f16})
    for (const std::size_t head_dim : {24, 80, 256})
      check_pair(StorageType::q4, values, {.query_heads = 6, .kv_heads = 2, .head_dim = head_dim}, 90, true,
                 0.1);
}

TEST_P(StoredLayers, ManySegmentsOfAFullCacheAreOneAttention) {
  for (const StorageType type : kTypes) {
    const Geometry g{.query_heads = 3, .kv_heads = 1, .head_dim = 16};
    const Tokens t(g, 1100, 5);
    auto cache = make("budget=100%", g, type, type);
    auto& layer = cache.layer(0);
    layer.extend(t.keys(0, 1090), t.values(0, 1090));
    for (std::size_t token = 1090; token < 1099; ++token) test::decode(layer, t, token);
    SCOPED_TRACE(storage_name(type));
    expect_attends_to_what_it_holds(layer, t, 1099, {}, tolerance_of(type, type));
  }
}

TEST(StoredLayers, ThreadsChangeNoBit) {
  const Geometry g{.query_heads = 8, .kv_heads = 2, .head_dim = 64};
  const Tokens t(g, 1400, 7);
  for (const StorageType type : kTypes) {
    SCOPED_TRACE(storage_name(type));
    std::vector<std::vector<float>> outputs;
    std::vector<test::HeldLayer> states;
    for (const Executor& executor : {serial(), threads(2), threads(3), threads(5)}) {
      auto cache = make("budget=1200", g, type, type, {.executor = executor});
      std::vector<float> all = test::prefill(cache.layer(0), t, 0, 1390);
      for (std::size_t token = 1390; token < t.count; ++token)
        for (const float x : test::decode(cache.layer(0), t, token)) all.push_back(x);
      outputs.push_back(std::move(all));
      states.push_back(test::held_layer(cache.layer(0), g.kv_heads));
    }
    for (std::size_t i = 1; i < outputs.size(); ++i) {
      EXPECT_TRUE(test::same_bits(outputs[0], outputs[i])) << "executor " << i;
      EXPECT_EQ(test::difference(states[0], states[i]), "") << "executor " << i;
    }
  }
}

TEST(StoredLayers, QuantisedOnesStayNearTheFullCache) {
  const Geometry g{.query_heads = 6, .kv_heads = 2, .head_dim = 64};
  const Tokens t(g, 300, 11);
  auto exact = make("budget=100%", g, StorageType::f32, StorageType::f32);
  test::prefill(exact.layer(0), t, 0, 290);
  std::vector<float> expected;
  for (std::size_t token = 290; token < t.count; ++token)
    for (const float x : test::decode(exact.layer(0), t, token)) expected.push_back(x);
  for (const auto& [type, most] : {std::pair{StorageType::q8, 0.02}, {StorageType::q4, 0.2}}) {
    auto cache = make("budget=100%", g, type, type);
    test::prefill(cache.layer(0), t, 0, 290);
    double error = 0.0, size = 0.0;
    std::size_t i = 0;
    for (std::size_t token = 290; token < t.count; ++token)
      for (const float x : test::decode(cache.layer(0), t, token)) {
        const double y = static_cast<double>(expected[i++]);
        error += (static_cast<double>(x) - y) * (static_cast<double>(x) - y);
        size += y * y;
      }
    EXPECT_LT(std::sqrt(error / size), most) << storage_name(type);
    EXPECT_GT(error, 0.0);
  }
}

}  // namespace
}  // namespace zeromerge
