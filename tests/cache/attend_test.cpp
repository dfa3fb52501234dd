// Outputs of a layer against the textbook in double: over the whole past while the budget holds it, over what
// is held after.
#include "zeromerge/cache/attend.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/isa.hpp"
#include "support/sequence.hpp"
#include "zeromerge/cache/presets.hpp"

namespace zeromerge {
namespace {

using test::HeldHead;
using test::Random;
using test::Tokens;

// 1e-5 against what f32 keeps; for 16-bit types the reference takes the rounded keys and values. Where the
// CPU multiplies pairs of bf16, queries and probabilities of tokens decoded over bf16 are rounded to it as
// well.
constexpr double kTolerance = 1e-5;
template <class K>
double tolerance_of_decoding() {
  return storage_of<K> == StorageType::bf16 && isa() >= Isa::avx512bf16 ? 2e-2 : kTolerance;
}

// Tiles take the numbers of a prompt apart into two of bf16.
template <class K>
double tolerance_of_prompts() {
  return storage_of<K> != StorageType::f32 && isa() >= Isa::amx ? 4e-5 : kTolerance;
}

// Every output row of `out`, tokens [first, first + n), against causal attention over all tokens up to its
// own.
void expect_exact(const std::vector<float>& out, const Tokens& kept, std::size_t first, std::size_t n,
                  double tolerance = kTolerance) {
  const std::size_t dim = kept.g.head_dim;
  for (std::size_t token = first; token < first + n; ++token)
    for (std::size_t h = 0; h < kept.g.query_heads; ++h) {
      const std::size_t kv = h / kept.g.group();
      const test::Attention expected = test::attention(
          kept.query(token, h), dim, token + 1, static_cast<double>(kept.g.attention_scale()),
          static_cast<double>(kept.g.logit_softcap), [&](std::size_t j) { return kept.key(j, kv); },
          [&](std::size_t j) { return kept.value(j, kv); }, [](std::size_t) { return 0.0; });
      const float* row = out.data() + ((token - first) * kept.g.query_heads + h) * dim;
      ASSERT_LE(test::row_error(row, expected), tolerance) << "token " << token << " query head " << h;
    }
}

struct Shape {
  Geometry geometry;
  std::size_t prompt;
};

// Shapes around the edges of tiles, blocks and segments, and random ones.
std::vector<Shape> shapes() {
  std::vector<Shape> all = {
      {{.query_heads = 9, .kv_heads = 3, .head_dim = 64}, 70},
      {{.query_heads = 4, .kv_heads = 1, .head_dim = 80}, 17},
      {{.query_heads = 2, .kv_heads = 2, .head_dim = 96}, 16},
      {{.query_heads = 8, .kv_heads = 1, .head_dim = 128, .logit_softcap = 2.0f}, 33},
      {{.query_heads = 1, .kv_heads = 1, .head_dim = 256}, 15},
      {{.query_heads = 71, .kv_heads = 1, .head_dim = 8}, 65},
      {{.query_heads = 1, .kv_heads = 1, .head_dim = 1, .scale = 0.7f}, 64},
      {{.query_heads = 6, .kv_heads = 2, .head_dim = 5}, 300},
      {{.query_heads = 3, .kv_heads = 1, .head_dim = 24, .logit_softcap = 5.0f}, 254},
      {{.query_heads = 1, .kv_heads = 1, .head_dim = 64}, 1},
  };
  Random random(41);
  for (int i = 0; i < 12; ++i) {
    const std::size_t kv_heads = random.between(1, 4);
    Geometry g{.query_heads = kv_heads * random.between(1, 5),
               .kv_heads = kv_heads,
               .head_dim = random.between(1, 70)};
    if (random.uniform() < 0.3) g.logit_softcap = static_cast<float>(1.0 + 4.0 * random.uniform());
    if (random.uniform() < 0.3) g.scale = static_cast<float>(0.05 + 0.3 * random.uniform());
    all.push_back({g, random.between(1, 120)});
  }
  return all;
}

std::string describe(const Shape& s) {
  const Geometry& g = s.geometry;
  return std::to_string(g.query_heads) + "/" + std::to_string(g.kv_heads) + "x" + std::to_string(g.head_dim) +
         " prompt " + std::to_string(s.prompt) + " softcap " + std::to_string(g.logit_softcap) + " scale " +
         std::to_string(g.scale);
}

class Attend : public test::EachIsa {};

template <class Layer, class K>
void expect_exact_run(Layer& layer, const Shape& shape, std::uint64_t seed) {
  const Tokens t(shape.geometry, shape.prompt + 5, seed);
  const Tokens kept = t.kept<K>();
  const auto prompt = test::prefill(layer, t, 0, shape.prompt);
  expect_exact(prompt, kept, 0, shape.prompt, tolerance_of_prompts<K>());
  for (std::size_t token = shape.prompt; token < t.count; ++token)
    expect_exact(test::decode(layer, t, token), kept, token, 1, tolerance_of_decoding<K>());
}

template <class K>
void expect_exact_within_the_budget(const char* settings) {
  std::uint64_t seed = 1;
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(describe(shape) + " " + settings + " " + element_name(element_of<K>));
    auto cache = test::make<K>(settings, shape.geometry);
    expect_exact_run<LayerCache<test::ZeroMergeOf<K>>, K>(cache.layer(0), shape, seed++);
    EXPECT_EQ(cache.layer(0).head(0).size(), shape.prompt + 5);
    if (testing::Test::HasFailure()) return;
  }
}

TEST_P(Attend, WhatFitsTheBudgetIsExactInEveryType) {
  expect_exact_within_the_budget<float>("budget=1000");
  expect_exact_within_the_budget<f16>("budget=1000");
  expect_exact_within_the_budget<bf16>("budget=1000");
}

TEST_P(Attend, WhatFitsTheBudgetIsExactForEveryPolicy) {
  for (const char* settings :
       {"budget=1000,score=exact", "budget=1000,merge=drop", "budget=1000,heads=adaptive",
        "budget=1000,importance=mean", "budget=1000,reference=1",
        "budget=1000,residual=30%,metric=l2,update=sum", "budget=1000,bounded=1"})
    expect_exact_within_the_budget<float>(settings);
}

TEST_P(Attend, TheFullCacheIsExact) {
  std::uint64_t seed = 100;
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(describe(shape));
    KvCache<Full<float>> cache(shape.geometry, {});
    expect_exact_run<LayerCache<Full<float>>, float>(cache.layer(0), shape, seed++);
  }
}

// A prompt is exact whatever the budget; so is the first decoded token when nothing had to go.
TEST_P(Attend, APromptIsExactUnderAnyBudgetAndABudgetOfAllTokensKeepsThemAll) {
  const Shape shape{{.query_heads = 6, .kv_heads = 2, .head_dim = 24}, 150};
  const Tokens t(shape.geometry, 151, 3);
  auto small = test::make("budget=5%", shape.geometry);
  expect_exact(test::prefill(small.layer(0), t, 0, 150), t, 0, 150);
  for (const char* settings : {"budget=100%", "budget=100%,reference=1", "budget=150,residual=5",
                               "budget=100%,merge=drop", "budget=100%,heads=adaptive"}) {
    SCOPED_TRACE(settings);
    auto cache = test::make(settings, shape.geometry);
    expect_exact(test::prefill(cache.layer(0), t, 0, 150), t, 0, 150);
    expect_exact(test::decode(cache.layer(0), t, 150), t, 150, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, Attend, testing::ValuesIn(test::available_isas()), test::isa_of);

// ---- after entries have been folded

// Decodes tokens [first, last): each output must be attention over what the heads held just before, the new
// token behind.
template <class K, class Layer>
void expect_attention_over_what_is_held(Layer& layer, const Tokens& t, std::size_t first, std::size_t last) {
  const Tokens kept = t.kept<K>();
  for (std::size_t token = first; token < last; ++token) {
    layer.finish_prompt();
    std::vector<HeldHead> before;
    for (std::size_t h = 0; h < t.g.kv_heads; ++h)
      before.push_back(test::with_token(test::held(layer.head(h)), kept, token, h));
    const auto out = test::decode(layer, t, token);
    for (std::size_t h = 0; h < t.g.query_heads; ++h)
      ASSERT_LE(test::row_error(out.data() + h * t.g.head_dim,
                                test::attention_over(before[h / t.g.group()], kept, token, h)),
                kTolerance)
          << "token " << token << " query head " << h;
  }
}

TEST(AttendHeld, DecodeIsAttentionOverWhatIsHeldWithItsBiases) {
  const Geometry g{.query_heads = 6, .kv_heads = 2, .head_dim = 24};
  const Tokens t(g, 300, 5);
  for (const char* settings :
       {"budget=50,residual=4,alpha=0.6", "budget=50,alpha=1,reference=1", "budget=50,merge=drop",
        "budget=50,heads=adaptive,residual=20%,alpha=2", "budget=280,residual=9"}) {
    SCOPED_TRACE(settings);
    auto cache = test::make<float>(settings, g);
    (void)test::prefill(cache.layer(0), t, 0, 200);
    expect_attention_over_what_is_held<float>(cache.layer(0), t, 200, 290);
  }
  auto half = test::make<f16>("budget=50,residual=4", g);
  (void)test::prefill(half.layer(0), t, 0, 200);
  expect_attention_over_what_is_held<f16>(half.layer(0), t, 200, 230);
}

TEST(AttendHeld, SoftcapAppliesBeforeTheBias) {
  const Geometry g{.query_heads = 4, .kv_heads = 2, .head_dim = 16, .logit_softcap = 1.5f};
  const Tokens t(g, 250, 6);
  auto cache = test::make("budget=40,residual=3,alpha=1", g);
  (void)test::prefill(cache.layer(0), t, 0, 150);
  expect_attention_over_what_is_held<float>(cache.layer(0), t, 150, 250);
}

TEST(AttendHeld, LongHeadsAreSplitIntoSegmentsThatCombine) {
  const Geometry g{.query_heads = 3, .kv_heads = 1, .head_dim = 16};
  const Tokens t(g, 1300, 7);
  auto cache = test::make("budget=700,residual=3", g);
  (void)test::prefill(cache.layer(0), t, 0, 1200);
  expect_attention_over_what_is_held<float>(cache.layer(0), t, 1200, 1220);
}

TEST(AttendHeld, ALaterPromptIsCausalAttentionOverWhatIsHeldAndItself) {
  const Geometry g{.query_heads = 6, .kv_heads = 2, .head_dim = 24};
  const Tokens t(g, 420, 8);
  for (const char* settings : {"budget=50,residual=4", "budget=50,residual=4,reference=1",
                               "budget=60,merge=drop", "budget=50,heads=adaptive,residual=20%"}) {
    SCOPED_TRACE(settings);
    auto cache = test::make(settings, g);
    auto& layer = cache.layer(0);
    (void)test::prefill(layer, t, 0, 150);
    for (std::size_t token = 150; token < 177; ++token) (void)test::decode(layer, t, token);
    for (const auto& [first, n] : {std::pair<std::size_t, std::size_t>{177, 40}, {217, 3}, {220, 100}}) {
      std::vector<HeldHead> before;
      for (std::size_t h = 0; h < g.kv_heads; ++h) before.push_back(test::held(layer.head(h)));
      const auto out = test::prefill(layer, t, first, n);
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t h = 0; h < g.kv_heads; ++h) before[h] = test::with_token(before[h], t, first + i, h);
        for (std::size_t h = 0; h < g.query_heads; ++h)
          ASSERT_LE(test::row_error(out.data() + (i * g.query_heads + h) * g.head_dim,
                                    test::attention_over(before[h / g.group()], t, first + i, h)),
                    kTolerance)
              << "token " << first + i;
      }
    }
    expect_attention_over_what_is_held<float>(layer, t, 320, 360);
    for (std::size_t h = 0; h < g.kv_heads; ++h)
      EXPECT_LE(layer.head(h).size(), layer.state(h).division.capacity);
  }
}

// ---- views

TEST(AttendViews, StridedRowsGiveTheSameBitsAsContiguousOnes) {
  const Geometry g{.query_heads = 6, .kv_heads = 2, .head_dim = 24};
  const Tokens t(g, 60, 9);
  // Heads outside, tokens inside, with room between the rows.
  const auto spread = [&](const std::vector<float>& x, std::size_t heads, std::vector<float>& memory) {
    const std::size_t row = g.head_dim + 3;
    memory.assign(heads * t.count * row, std::nanf(""));
    for (std::size_t token = 0; token < t.count; ++token)
      for (std::size_t h = 0; h < heads; ++h)
        std::copy_n(x.data() + (token * heads + h) * g.head_dim, g.head_dim,
                    memory.data() + (h * t.count + token) * row);
    return RowView{memory.data(),
                   Element::f32,
                   t.count,
                   heads,
                   g.head_dim,
                   static_cast<std::ptrdiff_t>(row * 4),
                   static_cast<std::ptrdiff_t>(t.count * row * 4)};
  };
  std::vector<float> qm, km, vm;
  const RowView q = spread(t.q, g.query_heads, qm);
  const RowView k = spread(t.k, g.kv_heads, km);
  const RowView v = spread(t.v, g.kv_heads, vm);
  auto plain = test::make("budget=32", g);
  auto strided = test::make("budget=32", g);
  const auto expected = test::run(plain.layer(0), t, 50);
  const std::size_t row = g.head_dim + 5;
  std::vector<float> out(g.query_heads * t.count * row, -7.0f);
  OutView to{out.data(),
             50,
             g.query_heads,
             g.head_dim,
             static_cast<std::ptrdiff_t>(row * 4),
             static_cast<std::ptrdiff_t>(t.count * row * 4)};
  strided.layer(0).prefill(q.slice(0, 50), k.slice(0, 50), v.slice(0, 50), to);
  to.tokens = 1;
  for (std::size_t token = 50; token < 60; ++token) {
    to.data = out.data() + token * row;
    strided.layer(0).decode(q.slice(token, 1), k.slice(token, 1), v.slice(token, 1), to);
  }
  for (std::size_t token = 0; token < 60; ++token)
    for (std::size_t h = 0; h < g.query_heads; ++h) {
      const float* got = out.data() + (h * t.count + token) * row;
      for (std::size_t d = 0; d < row; ++d)
        ASSERT_EQ(got[d], d < g.head_dim ? expected[(token * g.query_heads + h) * g.head_dim + d] : -7.0f)
            << token;
    }
  EXPECT_EQ(test::difference(test::held_layer(plain.layer(0), 2), test::held_layer(strided.layer(0), 2)), "");
}

template <class T>
void expect_16_bit_inputs_to_equal_their_f32_values() {
  const Geometry g{.query_heads = 6, .kv_heads = 2, .head_dim = 24};
  Tokens t(g, 60, 10);
  t.q = test::kept_as<T>(t.q);
  t = t.kept<T>();
  auto wide = test::make<f16>("budget=32", g);
  auto narrow = test::make<f16>("budget=32", g);
  const auto expected = test::run(wide.layer(0), t, 50);
  const auto q = test::stored<T>(t.q);
  const auto k = test::stored<T>(t.k);
  const auto v = test::stored<T>(t.v);
  std::vector<float> out(t.q.size());
  const RowView qs = rows(q.data(), 60, g.query_heads, g.head_dim);
  const RowView ks = rows(k.data(), 60, g.kv_heads, g.head_dim);
  const RowView vs = rows(v.data(), 60, g.kv_heads, g.head_dim);
  const std::size_t row = g.query_heads * g.head_dim;
  narrow.layer(0).prefill(qs.slice(0, 50), ks.slice(0, 50), vs.slice(0, 50),
                          out_rows(out.data(), 50, g.query_heads, g.head_dim));
  for (std::size_t token = 50; token < 60; ++token)
    narrow.layer(0).decode(qs.slice(token, 1), ks.slice(token, 1), vs.slice(token, 1),
                           out_rows(out.data() + token * row, 1, g.query_heads, g.head_dim));
  EXPECT_TRUE(test::same_bits(out, expected)) << element_name(element_of<T>);
  EXPECT_EQ(test::difference(test::held_layer(wide.layer(0), 2), test::held_layer(narrow.layer(0), 2)), "");
}

TEST(AttendViews, SixteenBitInputsEqualTheirF32Values) {
  expect_16_bit_inputs_to_equal_their_f32_values<f16>();
  expect_16_bit_inputs_to_equal_their_f32_values<bf16>();
}

// ---- truncated

// Of a group that was cut the rows that are left count, and nothing is written behind their logits.
TEST(AttendTruncated, IsOverWhatIsLeft) {
  const Geometry g{.query_heads = 6, .kv_heads = 1, .head_dim = 32};
  const Tokens t(g, 300, 12);
  for (const char* stored : {"keys=q4,values=f32", "keys=f32,values=q4", "storage=q4", "storage=f16"})
    for (const std::size_t left : {1u, 15u, 16u, 17u, 32u, 42u, 48u, 49u, 63u, 64u, 130u}) {
      SCOPED_TRACE(std::string(stored) + ", " + std::to_string(left));
      auto cache = make_cache(std::string("full:rollback=0,") + stored, g);
      AnyLayer& layer = cache->layer(0);
      (void)test::prefill(layer, t, 0, 200);
      layer.finish_prompt();
      layer.truncate(left);
      std::vector<float> key(left * 32), value(left * 32), out(6 * 32), lse(6);
      for (std::size_t j = 0; j < left; ++j) {
        layer.read_key(0, j, key.data() + j * 32);
        layer.read_value(0, j, value.data() + j * 32);
      }
      layer.attend(t.queries(250, 1), out_rows(out.data(), 1, 6, 32), lse.data());
      for (std::size_t h = 0; h < 6; ++h) {
        const auto expected = test::attention(
            t.query(250, h), 32, left, static_cast<double>(g.attention_scale()), 0.0,
            [&](std::size_t j) { return key.data() + j * 32; },
            [&](std::size_t j) { return value.data() + j * 32; }, [](std::size_t) { return 0.0; });
        ASSERT_LE(test::row_error(out.data() + h * 32, expected), 5e-3) << "head " << h;
        ASSERT_NEAR(lse[h], expected.lse, 2e-2) << "head " << h;
      }
    }
}

}  // namespace
}  // namespace zeromerge
