// Any composition that a text can say, used at random: what is held stays within the budget and what is
// answered is the attention over it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "support/attention.hpp"
#include "support/held.hpp"
#include "support/isa.hpp"
#include "support/rounding.hpp"
#include "support/sequence.hpp"
#include "support/temporary_file.hpp"

namespace zeromerge {
namespace {

using test::Random;
using test::Tokens;

constexpr std::size_t kLayers = 2, kHeads = 2, kDim = 16, kBudget = 60, kTail = 12, kSinks = 3;
const Geometry kGeometry{.layers = kLayers, .query_heads = 4, .kv_heads = kHeads, .head_dim = kDim};

template <std::size_t N>
std::string one_of(Random& random, const char* const (&texts)[N]) {
  return texts[random.next() % N];
}

// Every part of a policy at random. profile: the path of one.
std::string random_spec(Random& random, const std::string& profile) {
  std::string spec = "zeromerge:budget=60,tail=12,sinks=3,alpha=0.6";
  spec += one_of(random, {",storage=f32", ",storage=f32", ",storage=q4"});
  const bool two_stage = random.uniform() < 0.2;
  spec += two_stage ? ",heads=two-stage"
                    : one_of(random, {"", ",heads=adaptive", ",heads=global", ",heads=pyramid",
                                      ",heads=two-stage,first=60%", ",heads=error,error=0.2"});
  if (two_stage && random.uniform() < 0.5) spec += ",profile=" + profile;
  if (spec.find("heads=") == std::string::npos && random.uniform() < 0.2) spec += ",profile=" + profile;
  const bool by_attention = random.uniform() < 0.6;
  spec += by_attention ? one_of(random, {",replay=100%", ",replay=60%", ",window=50%", ",far=80%",
                                         ",defensive=100%", ",expected=100%"})
                       : one_of(random, {"", ",keydiff=100%", ",keydiff=40%"});
  if (by_attention) spec += one_of(random, {"", "", ",norm=1"});
  spec += one_of(random, {"", "", ",hold=7", ",hold=40"});
  spec += one_of(random, {"", ",local=20", ",local=10%"});
  spec += one_of(random, {"", ",rounding=queries"});
  spec += one_of(random, {"", ",precise=20%"});
  spec += one_of(random, {",merge=drop", ",merge=nearest", ",residual=1", ",residual=4,groups=clusters",
                          ",residual=20%,update=sum", ",residual=3,metric=l2"});
  spec += one_of(random, {"", ",evict=5", ",evict=16"});
  spec += one_of(random, {"", ",gate=1"});
  spec += one_of(random, {"", ",refit=24"});
  spec += one_of(random, {"", ",importance=mean,decay=0.95", ",decay=1"});
  spec += one_of(random, {"", ",least=0"});
  return spec;
}

// The attention of query head q over what is held and the token that comes, whose bias is alpha ln(mass). q4
// keeps it in bytes at first.
test::Attention expected(const AnyLayer& layer, const Tokens& t, std::size_t token, std::size_t q, bool q4) {
  const std::size_t h = q / kGeometry.group(), n = layer.entries(h);
  std::vector<float> key((n + 1) * kDim), value((n + 1) * kDim);
  for (std::size_t j = 0; j < n; ++j) {
    layer.read_key(h, j, key.data() + j * kDim);
    layer.read_value(h, j, value.data() + j * kDim);
  }
  std::copy_n(t.key(token, h), kDim, key.begin() + static_cast<std::ptrdiff_t>(n * kDim));
  std::copy_n(t.value(token, h), kDim, value.begin() + static_cast<std::ptrdiff_t>(n * kDim));
  if (q4) {
    test::keep_in_bytes(key.data() + n * kDim, kDim);
    test::keep_in_bytes(value.data() + n * kDim, kDim);
  }
  return test::attention(
      t.query(token, q), kDim, n + 1, static_cast<double>(kGeometry.attention_scale()), 0.0,
      [&](std::size_t j) { return key.data() + j * kDim; },
      [&](std::size_t j) { return value.data() + j * kDim; },
      [&](std::size_t j) { return j == n ? 0.0f : 0.6f * std::log(layer.mass(h, j)); });
}

class RandomUse {
 public:
  RandomUse(const std::string& spec, Random& random)
      : random_(random),
        by_error_(spec.find("heads=error") != std::string::npos),
        q4_(spec.find("q4") != std::string::npos) {
    uniform_ = spec.find("heads=") == std::string::npos && spec.find("profile=") == std::string::npos;
    tolerance_ = q4_ ? 5e-3 : 1e-4;
    CacheOptions options;
    options.rope = std::make_shared<Rope>(RopeParams{.dims = kDim}, kDim);
    cache_ = make_cache(spec, kGeometry, std::move(options));
    for (std::size_t l = 0; l < kLayers; ++l) t_.emplace_back(kGeometry, 600, random.next());
  }

  void run() {
    while (token_ < 400 && !testing::Test::HasFatalFailure()) {
      prompt();
      for (std::size_t n = random_.between(0, 60); n > 0 && !testing::Test::HasFatalFailure(); --n) decode();
    }
  }

 private:
  // In chunks, with a part that is taken back; ended by layers, together, or by the first decoded token.
  void prompt() {
    const std::size_t n = random_.between(1, random_.uniform() < 0.5 ? 8 : 130);
    const std::size_t first = random_.between(1, n);
    const bool apart = random_.uniform() < 0.3;
    for (std::size_t l = 0; l < kLayers; ++l) {
      AnyLayer& layer = cache_->layer(l);
      (void)test::prefill(layer, t_[l], token_, first);
      if (layer.can_truncate() && n > first) {
        (void)test::prefill(layer, t_[l], token_ + first + 1, 3);
        layer.truncate(token_ + first);
      }
      (void)test::prefill(layer, t_[l], token_ + first, n - first);
      if (apart) layer.finish_prompt();
    }
    token_ += n;
    if (!apart && random_.uniform() < 0.5) cache_->finish_prompt();
    expect_laws();
  }

  void decode() {
    for (std::size_t l = 0; l < kLayers; ++l) {
      AnyLayer& layer = cache_->layer(l);
      if (layer.in_prompt()) cache_->finish_prompt();
      std::vector<test::Attention> attention;
      for (std::size_t q = 0; q < kGeometry.query_heads; ++q)
        attention.push_back(expected(layer, t_[l], token_, q, q4_));
      const auto out = test::decode(layer, t_[l], token_);
      for (std::size_t q = 0; q < kGeometry.query_heads; ++q)
        ASSERT_LE(test::row_error(out.data() + q * kDim, attention[q]), tolerance_) << "token " << token_;
    }
    ++token_;
    expect_laws();
  }

  void expect_laws() {
    std::size_t entries = 0;
    for (std::size_t l = 0; l < kLayers; ++l) {
      const AnyLayer& layer = cache_->layer(l);
      if (layer.in_prompt()) return;
      ASSERT_EQ(layer.tokens(), token_);
      for (std::size_t h = 0; h < kHeads; ++h) {
        std::set<std::size_t> positions;
        for (std::size_t j = 0; j < layer.entries(h); ++j) positions.insert(layer.position(h, j));
        ASSERT_EQ(positions.size(), layer.entries(h)) << "two entries of one token";
        ASSERT_LT(*positions.rbegin(), token_);
        for (std::size_t i = 0; i < std::min(kSinks, token_); ++i)
          ASSERT_TRUE(positions.contains(i)) << "sink " << i;
        for (std::size_t i = 1; i <= std::min(kTail, token_); ++i)
          ASSERT_TRUE(positions.contains(token_ - i)) << "recent token " << token_ - i << " after " << token_;
        ASSERT_TRUE(!uniform_ || layer.entries(h) <= kBudget);
        entries += layer.entries(h);
      }
    }
    ASSERT_TRUE(by_error_ || entries <= kBudget * kLayers * kHeads) << entries << " after " << token_;
  }

  Random& random_;
  bool by_error_, uniform_ = false;
  bool q4_;
  double tolerance_;
  std::unique_ptr<AnyCache> cache_;
  std::vector<Tokens> t_;
  std::size_t token_ = 0;
};

TEST(RandomSpecs, StayWithinTheBudgetAndAnswerByWhatTheyHold) {
  // Levels above round queries to 8 bits where storage is packed, which storage_test.cpp measures.
  const test::IsaScope exact(std::min(isa(), Isa::avx512));
  const test::TemporaryFile profile("zeromerge-profile 1 layers 2 kv_heads 2 budget 0.05 1 3 2 2");
  Random random(1);
  for (int i = 0; i < 45; ++i) {
    const std::string spec = random_spec(random, profile.path());
    SCOPED_TRACE("use " + std::to_string(i) + ": " + spec);
    RandomUse(spec, random).run();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace zeromerge
