// KeyDiff's ratings on the device against its formula in double.
#include <gtest/gtest.h>

#include <cmath>

#include "support/device_heads.hpp"
#include "zeromerge/cuda/launches.hpp"

namespace zeromerge::test {
namespace {

// -cos(k_j, sum of k / |k|), of keys as they are stored.
std::vector<double> plain_ratings(const PlainHead& head) {
  const auto length = [](const auto& x) {
    double sum = 0.0;
    for (const double value : x) sum += value * value;
    return std::sqrt(sum);
  };
  std::vector<double> sum(head.keys[0].size(), 0.0);
  for (const auto& key : head.keys)
    for (std::size_t d = 0; d < sum.size() && length(key) > 0.0; ++d) sum[d] += key[d] / length(key);
  std::vector<double> all;
  for (const auto& key : head.keys) {
    double dot = 0.0;
    for (std::size_t d = 0; d < sum.size(); ++d) dot += key[d] * sum[d];
    all.push_back(length(key) > 0.0 ? -dot / (length(key) * length(sum)) : 0.0);
  }
  return all;
}

class RateKeys : public DeviceTest {};

template <class K>
void expect_ratings(std::size_t head_dim, std::uint64_t seed) {
  Random random(seed);
  std::vector<PlainHead> plain;
  for (const std::size_t entries : {1, 7, 8, 9, 130})
    plain.push_back(random_head(random, entries, head_dim, true));
  for (float& x : plain[4].keys[3]) x = 0.0f;  // like no other
  const std::uint32_t stride = 131;
  const auto heads = static_cast<std::uint32_t>(plain.size());
  const DeviceHeads<K> device(plain, head_dim, true, false);
  const cuda::Buffer<float> ratings(heads * stride);
  cuda::launch_rate_keys<K>(
      {{device.rows(), device.states(), nullptr, heads, 1, static_cast<std::uint32_t>(head_dim)},
       ratings.data(),
       stride,
       1},
      {});
  const auto stored = device.read();
  for (std::size_t h = 0; h < plain.size(); ++h) {
    std::vector<float> got(plain[h].size());
    cuda::copy_out(got.data(), ratings.data() + h * stride, got.size() * sizeof(float), {});
    cuda::synchronise({});
    const auto expected = plain_ratings(stored[h]);
    for (std::size_t j = 0; j < got.size(); ++j)
      EXPECT_NEAR(got[j], expected[j], 2e-6) << "head " << h << " entry " << j << " of " << got.size();
    EXPECT_EQ(stored[h].score, plain[h].score) << "scores stay";
  }
}

TEST_F(RateKeys, AreCosinesWithTheSumOfUnitKeys) {
  expect_ratings<f16>(64, 1);
  expect_ratings<bf16>(80, 2);
  expect_ratings<q8>(96, 3);
  expect_ratings<f16>(256, 4);
}

// Only of heads that the newest entry, which the state does not count yet, leaves too full.
TEST_F(RateKeys, TakeThePlaceOfScoresInAStepWhereSomebodyLeaves) {
  Random random(5);
  std::vector<PlainHead> plain;
  for (std::size_t h = 0; h < 3; ++h) {
    plain.push_back(random_head(random, 20, 64, true));
    plain[h].state.size = 19;
    plain[h].state.capacity = h == 0 ? 19 : h == 1 ? 20 : cuda::kKeepsAll;
  }
  const DeviceHeads<f16> device(plain, 64, true, false);
  cuda::launch_rate_keys<f16>({{device.rows(), device.states(), nullptr, 3, 1, 64}, nullptr, 0, 1}, {});
  std::vector<PlainHead> after = device.read();  // of 19 entries each
  EXPECT_EQ(after[1].score, std::vector<float>(plain[1].score.begin(), plain[1].score.begin() + 19));
  EXPECT_EQ(after[2].score, std::vector<float>(plain[2].score.begin(), plain[2].score.begin() + 19));
  PlainHead whole = plain[0];
  for (auto& key : whole.keys)
    for (float& x : key) x = to_f32(from_f32<f16>(x));
  const auto expected = plain_ratings(whole);
  for (std::size_t j = 0; j < 19; ++j) EXPECT_NEAR(after[0].score[j], expected[j], 2e-6) << "entry " << j;
}

}  // namespace
}  // namespace zeromerge::test
