// Decode attention on the device, or its emulation, against the textbook in double.
#include <gtest/gtest.h>

#include <string>

#include "support/attention.hpp"
#include "support/device_heads.hpp"

namespace zeromerge::test {
namespace {

struct Problem {
  const char* name;
  std::size_t group;
  std::size_t head_dim;
  std::vector<std::size_t> sizes;  // [batch * kv_heads] ragged
  std::size_t kv_heads = 1;
  unsigned multiprocessors = 4;  // the more, the more splits
  float softcap = 0.0f;
  bool sinks = false;
  bool fields = true;  // masses and scores
  Element type = Element::f32;
  bool reversed = false;  // row r of the batch is the sequence r from the end
};

std::vector<Problem> problems() {
  return {
      {"OneHeadPerGroup", 1, 64, {130}},
      {"OneEntry", 2, 64, {1}},
      {"ATileAndOneMore", 4, 128, {17, 33}, 2},
      {"GroupOfThree", 3, 64, {65, 200, 31}, 3},
      {"GroupOfFive", 5, 64, {70}},
      {"GroupOfSeven", 7, 128, {40}},
      {"GroupOfEight", 8, 128, {150, 3}, 1},
      {"GroupBeyondOnePass", 12, 64, {90}, 1},
      {"WideHeads", 4, 256, {77}},
      {"OneOf128Channels", 1, 128, {40}},
      {"OneOf256Channels", 1, 256, {40}},
      {"TwoOf256Channels", 2, 256, {40}},
      {"EightOf256Channels", 8, 256, {40}},
      {"HeadsThatFillNoLane", 2, 80, {100}, 1},
      {"HeadsThatFillNoChunk", 4, 69, {65}, 1},
      {"SeveralSequences", 2, 64, {64, 63, 129, 300, 1, 2}, 2, 2},
      {"OneSplit", 4, 64, {400, 10}, 2, 1},
      {"ManySplits", 4, 64, {640}, 1, 64},
      {"NoFields", 4, 128, {100}, 1, 4, 0.0f, false, false},
      {"Softcap", 4, 64, {100}, 1, 4, 5.0f},
      {"SinkLogits", 3, 64, {100}, 1, 4, 0.0f, true},
      {"QueriesInF16", 4, 64, {100}, 1, 4, 0.0f, false, true, Element::f16},
      {"QueriesInBf16", 4, 64, {100}, 1, 4, 0.0f, false, true, Element::bf16},
      {"RowsInAnotherOrder", 2, 64, {64, 63, 129, 300, 1, 2}, 2, 2, 0.0f, false, true, Element::f32, true}};
}

// What a caller has, in the element type it has it in.
std::vector<unsigned char> given(const std::vector<float>& x, Element type) {
  std::vector<unsigned char> bytes(x.size() * element_size(type));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const f16 half = from_f32<f16>(x[i]);
    const bf16 brain = from_f32<bf16>(x[i]);
    const void* from = type == Element::f16    ? static_cast<const void*>(&half)
                       : type == Element::bf16 ? static_cast<const void*>(&brain)
                                               : &x[i];
    std::memcpy(bytes.data() + i * element_size(type), from, element_size(type));
  }
  return bytes;
}
std::vector<float> rounded(std::vector<float> x, Element type) {
  for (float& y : x)
    y = type == Element::f16    ? to_f32(from_f32<f16>(y))
        : type == Element::bf16 ? to_f32(from_f32<bf16>(y))
                                : y;
  return x;
}
std::vector<float> row_of(const std::vector<float>& x, std::size_t r, std::size_t dim) {
  return {x.begin() + static_cast<std::ptrdiff_t>(r * dim),
          x.begin() + static_cast<std::ptrdiff_t>((r + 1) * dim)};
}

// Runs one step without eviction and compares all it gives: outputs, the log of the sums, scores.
template <class K, class V>
class Step {
 public:
  explicit Step(const Problem& p) : p_(p), batch_(p.sizes.size() / p.kv_heads) {
    Random random(7);
    for (const std::size_t n : p.sizes) heads_.push_back(random_head(random, n, p.head_dim, p.fields));
    const std::size_t rows = p.sizes.size();
    q_ = rounded(normals(random, rows * p.group * p.head_dim), p.type);
    k_ = rounded(normals(random, rows * p.head_dim), p.type);
    v_ = rounded(normals(random, rows * p.head_dim), p.type);
    sinks_ = normals(random, p.kv_heads * p.group, 2.0);
  }

  void check() {
    const DeviceHeads<K, V> device(heads_, p_.head_dim, p_.fields, p_.fields);
    const auto most = static_cast<unsigned>(*std::max_element(p_.sizes.begin(), p_.sizes.end()) + 1);
    const auto plan = cuda::plan_decode(p_.multiprocessors, p_.sizes.size(), static_cast<unsigned>(p_.group),
                                        static_cast<unsigned>(p_.head_dim), most);
    StepBuffers buffers(plan, p_.fields, batch_, p_.kv_heads * p_.group);
    const auto q = uploaded(given(q_, p_.type));
    const auto k = uploaded(given(k_, p_.type));
    const auto v = uploaded(given(v_, p_.type));
    const auto sinks = uploaded(sinks_);
    cuda::DecodeStep step = {};
    std::vector<std::uint32_t> order(batch_);
    for (std::size_t r = 0; r < batch_; ++r) order[r] = static_cast<std::uint32_t>(batch_ - 1 - r);
    const auto sequences = uploaded(order);
    step.heads = {device.rows(),
                  device.states(),
                  p_.reversed ? sequences.data() : nullptr,
                  static_cast<unsigned>(p_.kv_heads),
                  static_cast<unsigned>(p_.group),
                  static_cast<unsigned>(p_.head_dim)};
    step.rule.decay = 0.9f;
    step.rule.block = 1;
    step.q = q.data(), step.k = k.data(), step.v = v.data(), step.type = p_.type;
    step.out = buffers.out.data(), step.out_type = Element::f32, step.lse = buffers.lse.data();
    step.sinks = p_.sinks ? sinks.data() : nullptr;
    step.scale = scale();
    step.softcap = p_.softcap;
    step.batch = static_cast<unsigned>(batch_);
    step.floats = buffers.floats.data(), step.logits = buffers.logits.data();
    step.least_value = buffers.least_value.data(), step.least_slot = buffers.least_slot.data();
    cuda::launch_decode_step<K, V>(step, plan, {});
    compare(device.read(), downloaded(buffers.out), downloaded(buffers.lse));
  }

 private:
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(p_.head_dim)); }

  // Where head h, as they are stored, lies in what a batch gives and takes.
  std::size_t row(std::size_t h) const {
    return p_.reversed ? (batch_ - 1 - h / p_.kv_heads) * p_.kv_heads + h % p_.kv_heads : h;
  }

  // got: heads after the step, stored values included.
  void compare(const std::vector<PlainHead>& got, const std::vector<float>& out,
               const std::vector<float>& lse) {
    for (std::size_t h = 0; h < got.size(); ++h) {
      const std::size_t n = p_.sizes[h] + 1;
      ASSERT_EQ(got[h].size(), n);
      EXPECT_EQ(got[h].state.tokens, n);
      EXPECT_EQ(got[h].position.back(), n - 1);
      float scale_unused = 1.0f;
      const auto key = encoded<K>(row_of(k_, row(h), p_.head_dim), &scale_unused);
      EXPECT_EQ(got[h].keys.back(), decoded<K>(key.data(), scale_unused, p_.head_dim));
      const auto value = encoded<V>(row_of(v_, row(h), p_.head_dim), &scale_unused);
      EXPECT_EQ(got[h].values.back(), decoded<V>(value.data(), scale_unused, p_.head_dim));
      std::vector<double> summed(n, 0.0);
      for (std::size_t g = 0; g < p_.group; ++g) compare_head(got[h], h, g, out, lse, summed);
      if (!p_.fields) continue;
      for (std::size_t j = 0; j < n; ++j) {
        const double before = j + 1 < n ? static_cast<double>(heads_[h].score[j]) : 0.0;
        EXPECT_NEAR(got[h].score[j], 0.9 * before + summed[j], 2e-5) << "head " << h << " entry " << j;
      }
    }
  }
  void compare_head(const PlainHead& got, std::size_t h, std::size_t g, const std::vector<float>& out,
                    const std::vector<float>& lse, std::vector<double>& summed) {
    const std::size_t query = row(h) * p_.group + g;
    auto reference = attention(
        q_.data() + query * p_.head_dim, p_.head_dim, got.size(), static_cast<double>(scale()),
        static_cast<double>(p_.softcap), [&](std::size_t j) { return got.keys[j].data(); },
        [&](std::size_t j) { return got.values[j].data(); },
        [&](std::size_t j) { return p_.fields && j + 1 < got.size() ? heads_[h].bias[j] : 0.0f; });
    double share = 1.0;  // of the sum that the sink leaves
    if (p_.sinks) {
      const double sink = static_cast<double>(sinks_[h % p_.kv_heads * p_.group + g]);
      share = 1.0 / (1.0 + std::exp(sink - reference.lse));
      reference.lse -= std::log(share);
    }
    EXPECT_NEAR(lse[query], reference.lse, 1e-4) << "head " << h << " query head " << g;
    for (std::size_t d = 0; d < p_.head_dim; ++d)
      ASSERT_NEAR(out[query * p_.head_dim + d], reference.out[d] * share, 3e-5)
          << "head " << h << " query head " << g << " channel " << d;
    for (std::size_t j = 0; j < got.size(); ++j) summed[j] += reference.probability[j] * share;
  }

  Problem p_;
  std::size_t batch_;
  std::vector<PlainHead> heads_;
  std::vector<float> q_, k_, v_, sinks_;
};

class DecodeAttention : public DeviceTest, public testing::WithParamInterface<Problem> {};

TEST_P(DecodeAttention, AgreesWithTheTextbookInF16) { Step<f16, f16>(GetParam()).check(); }
TEST_P(DecodeAttention, AgreesWithTheTextbookInBf16) { Step<bf16, bf16>(GetParam()).check(); }
TEST_P(DecodeAttention, AgreesWithTheTextbookInQ8) { Step<q8, q8>(GetParam()).check(); }

using MixedDecodeAttention = DeviceTest;
TEST_F(MixedDecodeAttention, AgreesWithTheTextbook) {
  for (const std::size_t group : {1, 2, 4, 8})
    for (const std::size_t head_dim : {64, 128, 256}) {
      SCOPED_TRACE(std::to_string(group) + " heads of " + std::to_string(head_dim));
      Step<f16, q8>({"", group, head_dim, {100, 40}, 2}).check();
      Step<q8, f16>({"", group, head_dim, {100, 40}, 2}).check();
    }
}

INSTANTIATE_TEST_SUITE_P(Problems, DecodeAttention, testing::ValuesIn(problems()),
                         [](const auto& problem) { return std::string(problem.param.name); });

}  // namespace
}  // namespace zeromerge::test
