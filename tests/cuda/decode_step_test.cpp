// Whole decode steps on the device beside the host's cache: hundreds of random tokens, the same outputs, the
// same decisions. Where two entries are worth the same to within rounding the two may choose differently: the
// test then checks that they were, and goes on with the host's choice.
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "support/device_heads.hpp"
#include "support/isa.hpp"
#include "support/sequence.hpp"

namespace zeromerge::test {
namespace {

struct StepCase {
  const char* name;
  const char* settings;  // of the host's policy
  cuda::StepRule rule;   // the same for the device
  bool masses = true;
  std::size_t prompt = 100;
  std::size_t steps = 120;
};

cuda::StepRule rule(float decay, cuda::Fold fold) {
  cuda::StepRule r = {};
  r.decay = decay;
  r.log2_decay = std::log2(decay);
  r.fold = fold;
  r.alpha = 0.6f;
  r.block = 1;
  return r;
}
template <class Change>
cuda::StepRule with(Change change) {
  cuda::StepRule r = rule(0.98f, cuda::Fold::residual);
  change(r);
  return r;
}

std::vector<StepCase> cases() {
  using cuda::Fold;
  return {{"ZeroMerge", "budget=64", rule(0.98f, Fold::residual), true, 150, 400},
          {"SeveralResidualEntries", "budget=64,residual=10%", rule(0.98f, Fold::residual)},
          {"NearestByDistance", "budget=64,residual=5,metric=l2",
           with([](auto& r) { r.match = cuda::Match::l2; })},
          {"ScoresAddUpInMerges", "budget=64,update=sum", with([](auto& r) { r.sum_on_merge = 1; })},
          {"AccumulatedAttentionAndDrop", "budget=64,decay=1,merge=drop,sinks=0,tail=50%",
           rule(1.0f, Fold::drop), false},
          {"DropKeepsNoMass", "budget=64,merge=drop", rule(0.98f, Fold::drop), false},
          {"MeanOfWhatCouldSeeIt", "budget=64,importance=mean", with([](auto& r) {
             r.importance = cuda::Importance::mean_score, r.decay = 1.0f, r.log2_decay = 0.0f;
           })},
          {"DecayedMean", "budget=64,importance=mean,decay=0.98",
           with([](auto& r) { r.importance = cuda::Importance::mean_score; })},
          {"BlocksLeaveTogether", "budget=64,evict=8", with([](auto& r) { r.block = 8; })},
          {"TheReferenceToTheLetter", "budget=64,reference=1,alpha=0.6",
           with([](auto& r) { r.as_reference = 1; })},
          {"APromptThatFits", "budget=64,residual=8", rule(0.98f, Fold::residual), true, 20, 200},
          {"APromptThatJustFits", "budget=64,residual=8", rule(0.98f, Fold::residual), true, 62, 100},
          {"OneEntryCompetes", "budget=12,tail=6,sinks=4", rule(0.98f, Fold::residual), true, 40, 100},
          {"ScoresOfSeveralBlocks", "budget=1100", rule(0.98f, Fold::residual), true, 1200, 12}};
}

template <class K, class V>
PlainHead plain(const Head<K, V>& head, const HeadState& state, std::size_t tokens) {
  PlainHead to;
  std::vector<float> row(head.head_dim());
  for (std::size_t j = 0; j < head.size(); ++j) {
    head.read_key(j, row.data());
    to.keys.push_back(row);
    head.read_value(j, row.data());
    to.values.push_back(row);
    to.position.push_back(head.position()[j]);
    to.score.push_back(head.fields().score ? head.score()[j] : 0.0f);
    to.mass.push_back(head.fields().mass ? head.mass()[j] : 1.0f);
    to.bias.push_back(head.fields().mass ? head.bias()[j] : 0.0f);
  }
  const auto u32 = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
  const Division& d = state.division;
  to.state = {
      u32(head.size()),     u32(tokens),        d.capacity == kUnlimited ? cuda::kKeepsAll : u32(d.capacity),
      u32(d.sinks),         u32(d.residual),    u32(d.recent),
      u32(state.residuals), u32(state.rated),   u32(state.ring_next),
      state.ring ? 1u : 0u, u32(state.held_sum)};
  return to;
}

// A layer on the host, and its copy on the device.
template <class T, class Layer>
class Pair {
 public:
  // steps: tokens to come.
  Pair(Layer& layer, const Geometry& g, const cuda::StepRule& r, bool scores, bool masses, std::size_t steps)
      : layer_(layer), g_(g), rule_(r), scores_(scores), masses_(masses) {
    std::size_t most = 0;
    for (std::size_t h = 0; h < g.kv_heads; ++h) {
      const std::size_t capacity = layer.state(h).division.capacity;
      const std::size_t size = layer.head(h).size();
      most = std::max(most, capacity == kUnlimited ? size + steps : std::max(size, capacity) + 1);
    }
    plan_ = cuda::plan_decode(4, g.kv_heads, static_cast<unsigned>(g.group()),
                              static_cast<unsigned>(g.head_dim), static_cast<unsigned>(most));
    upload();
  }

  std::vector<float> decode(const Tokens& t, std::size_t token) {
    const auto q = uploaded(rows(t.query(token, 0), g_.query_heads));
    const auto k = uploaded(rows(t.key(token, 0), g_.kv_heads));
    const auto v = uploaded(rows(t.value(token, 0), g_.kv_heads));
    StepBuffers buffers(plan_, scores_, 1, g_.query_heads);
    cuda::DecodeStep step = {};
    step.heads = {device_->rows(), device_->states(), nullptr, static_cast<unsigned>(g_.kv_heads),
                  plan_.group,     plan_.head_dim};
    step.rule = rule_;
    step.q = q.data(), step.k = k.data(), step.v = v.data();
    step.out = buffers.out.data();
    step.scale = g_.attention_scale();
    step.batch = 1;
    step.floats = buffers.floats.data(), step.logits = buffers.logits.data();
    step.least_value = buffers.least_value.data(), step.least_slot = buffers.least_slot.data();
    cuda::launch_decode_step<T, T>(step, plan_, {});
    return downloaded(buffers.out);
  }

  // Whether both hold the same entries in the same slots; where they do not, the choice must have been a
  // close one, and the device's copy is made anew.
  bool same_entries() {
    const std::vector<PlainHead> got = device_->read();
    bool same = true;
    for (std::size_t h = 0; h < got.size(); ++h) {
      const PlainHead want = plain(layer_.head(h), layer_.state(h), layer_.tokens());
      EXPECT_EQ(std::memcmp(&got[h].state, &want.state, sizeof want.state), 0) << "head " << h;
      if (got[h].position == want.position) continue;
      same = false;
      EXPECT_TRUE(close_choice(got[h], want))
          << "head " << h << " chose another entry after " << layer_.tokens();
    }
    if (!same) upload();
    return same;
  }
  void compare_entries() const {
    const std::vector<PlainHead> got = device_->read();
    for (std::size_t h = 0; h < got.size(); ++h) {
      const PlainHead want = plain(layer_.head(h), layer_.state(h), layer_.tokens());
      ASSERT_EQ(got[h].size(), want.size());
      for (std::size_t j = 0; j < want.size(); ++j) {
        if (scores_) {
          EXPECT_NEAR(got[h].score[j], want.score[j], 1e-3f * (0.01f + want.score[j]));
        }
        if (masses_) {
          EXPECT_EQ(got[h].mass[j], want.mass[j]) << "head " << h << " entry " << j;
          EXPECT_NEAR(got[h].bias[j], want.bias[j], 1e-5f);
        }
        for (std::size_t d = 0; d < g_.head_dim; ++d) {
          ASSERT_NEAR(got[h].keys[j][d], want.keys[j][d], 0.02f) << "head " << h << " entry " << j;
          ASSERT_NEAR(got[h].values[j][d], want.values[j][d], 0.02f) << "head " << h << " entry " << j;
        }
      }
    }
  }

 private:
  std::vector<float> rows(const float* first, std::size_t heads) const {
    return {first, first + heads * g_.head_dim};
  }
  void upload() {
    std::vector<PlainHead> heads;
    for (std::size_t h = 0; h < g_.kv_heads; ++h)
      heads.push_back(plain(layer_.head(h), layer_.state(h), layer_.tokens()));
    std::size_t spare = 0;
    for (const PlainHead& head : heads) spare = std::max<std::size_t>(spare, plan_.most - head.size());
    device_.emplace(heads, g_.head_dim, scores_, masses_, spare);
  }
  // An entry that only one of them holds, and its score there, for both.
  static bool close_choice(const PlainHead& a, const PlainHead& b) {
    const auto only = [](const PlainHead& in, const PlainHead& not_in) {
      for (std::size_t j = 0; j < in.size(); ++j)
        if (std::find(not_in.position.begin(), not_in.position.end(), in.position[j]) ==
            not_in.position.end())
          return in.score[j];
      return -1.0f;
    };
    const float x = only(a, b);
    const float y = only(b, a);
    return std::abs(x - y) <= 1e-4f * std::max(std::abs(x), std::abs(y));
  }

  Layer& layer_;
  Geometry g_;
  cuda::StepRule rule_;
  bool scores_, masses_;
  cuda::DecodePlan plan_;
  std::optional<DeviceHeads<T>> device_;
};

// The largest error of a head's output, relative to its length.
double relative_error(const std::vector<float>& got, const std::vector<float>& want, std::size_t dim) {
  double most = 0.0;
  for (std::size_t first = 0; first < got.size(); first += dim) {
    double error = 0.0, length = 0.0;
    for (std::size_t d = first; d < first + dim; ++d) {
      error += std::pow(static_cast<double>(got[d]) - static_cast<double>(want[d]), 2);
      length += std::pow(static_cast<double>(want[d]), 2);
    }
    most = std::max(most, std::sqrt(error / length));
  }
  return most;
}

template <class T, class Layer>
void follow(Layer& layer, const Tokens& t, const StepCase& c, bool scores, double bound) {
  const IsaScope through_f32(Isa::portable);  // wider ones multiply rounded queries
  (void)prefill(layer, t, 0, c.prompt);
  layer.finish_prompt();
  Pair<T, Layer> pair(layer, t.g, c.rule, scores, c.masses, c.steps);
  std::size_t apart = 0;
  for (std::size_t token = c.prompt; token < t.count; ++token) {
    const std::vector<float> got = pair.decode(t, token);
    const std::vector<float> want = decode(layer, t, token);
    ASSERT_LT(relative_error(got, want, t.g.head_dim), bound) << "token " << token;
    if (!pair.same_entries()) ++apart;
    if (testing::Test::HasFailure()) return;
  }
  pair.compare_entries();
  EXPECT_LE(apart, c.steps / 50);
}

template <class T>
void follow_zeromerge(const StepCase& c, double bound) {
  const Geometry g{.query_heads = 4, .kv_heads = 2, .head_dim = 64};
  auto cache = make<T>(c.settings, g);
  follow<T>(cache.layer(0), Tokens(g, c.prompt + c.steps, 3), c, true, bound);
}

class DecodeStep : public DeviceTest, public testing::WithParamInterface<StepCase> {};

TEST_P(DecodeStep, FollowsTheHostInF16) { follow_zeromerge<f16>(GetParam(), 1e-3); }
INSTANTIATE_TEST_SUITE_P(Policies, DecodeStep, testing::ValuesIn(cases()),
                         [](const auto& c) { return std::string(c.param.name); });

using OneDecodeStep = DeviceTest;

TEST_F(OneDecodeStep, FollowsTheHostInBf16) {
  follow_zeromerge<bf16>({"", "budget=64,residual=3", rule(0.98f, cuda::Fold::residual)}, 1e-3);
}
TEST_F(OneDecodeStep, FollowsTheHostInQ8) {
  follow_zeromerge<q8>({"", "budget=64,residual=3", rule(0.98f, cuda::Fold::residual)}, 1e-3);
}

TEST_F(OneDecodeStep, OfStreamingKeepsTheFirstAndTheNewest) {
  const Geometry g{.query_heads = 4, .kv_heads = 2, .head_dim = 64};
  AnyStreaming any = detail::read_streaming(Spec("streaming:budget=40"));
  Policy<Recency, AnyBudget, DropMerge, f16> policy{any.score, any.budget, any.merge, any.areas};
  KvCache<decltype(policy)> cache(g, policy);
  StepCase c = {"Streaming", "", rule(1.0f, cuda::Fold::drop), false, 60, 120};
  c.rule.importance = cuda::Importance::recency;
  follow<f16>(cache.layer(0), Tokens(g, c.prompt + c.steps, 3), c, false, 1e-3);
}

TEST_F(OneDecodeStep, OfAFullCacheLosesNobody) {
  const Geometry g{.query_heads = 4, .kv_heads = 2, .head_dim = 64};
  KvCache<Full<f16>> cache(g, Full<f16>{});
  const StepCase c = {"", "", rule(1.0f, cuda::Fold::drop), false, 60, 40};
  follow<f16>(cache.layer(0), Tokens(g, c.prompt + c.steps, 3), c, false, 1e-3);
}

}  // namespace
}  // namespace zeromerge::test
