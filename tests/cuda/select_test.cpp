// Who is selected on the device, against a stable sort.
#include <gtest/gtest.h>

#include <numeric>

#include "support/device_heads.hpp"
#include "zeromerge/cuda/launches.hpp"

namespace zeromerge::test {
namespace {

// Slots of [first, last) by falling value, `by_score` of them, then `by_rating` of the others by rating;
// rising.
std::vector<std::uint32_t> best(const std::vector<float>& score, const std::vector<float>& rating,
                                const cuda::SelectHead& ask) {
  std::vector<std::uint32_t> slots(ask.last - ask.first);
  std::iota(slots.begin(), slots.end(), ask.first);
  const auto by = [](const std::vector<float>& value) {
    return [&value](std::uint32_t a, std::uint32_t b) { return value[a] > value[b]; };
  };
  std::stable_sort(slots.begin(), slots.end(), by(score));
  const auto middle = slots.begin() + ask.by_score;
  std::sort(middle, slots.end());
  if (ask.by_rating != 0) std::stable_sort(middle, slots.end(), by(rating));
  const auto end = middle + ask.by_rating;
  std::sort(slots.begin(), end);
  std::sort(end, slots.end());
  return slots;
}

// Values of which many are equal, of both signs and both zeros.
std::vector<float> values(Random& random, std::size_t n, std::size_t distinct) {
  std::vector<float> all(n);
  for (float& x : all) {
    x = static_cast<float>(random.between(0, distinct)) / 8.0f - static_cast<float>(distinct / 2) / 8.0f;
    if (x == 0.0f && random.between(0, 1) == 0) x = -0.0f;
  }
  return all;
}

class SelectSlots : public DeviceTest {};

TEST_F(SelectSlots, TakesTheLargestAndOfEqualOnesTheLowerSlots) {
  Random random(3);
  for (std::size_t round = 0; round < 40; ++round) {
    const std::size_t heads = random.between(1, 3);
    const std::size_t stride = random.between(1, 700);
    std::vector<PlainHead> plain;
    std::vector<cuda::SelectHead> ask;
    std::vector<float> ratings;
    for (std::size_t h = 0; h < heads; ++h) {
      plain.push_back(random_head(random, stride, 8, true));
      plain[h].score = values(random, stride, round % 2 == 0 ? 5 : 5000);
      const auto more = values(random, stride, 20);
      ratings.insert(ratings.end(), more.begin(), more.end());
      const auto u32 = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
      cuda::SelectHead a{};
      a.first = u32(random.between(0, stride));
      a.last = u32(random.between(a.first, stride));
      a.by_score = u32(random.between(0, a.last - a.first));
      a.by_rating = u32(random.between(0, a.last - a.first - a.by_score));
      ask.push_back(a);
    }
    const DeviceHeads<f16> device(plain, 8, true, true);
    const auto asked = uploaded(ask);
    const auto rated = uploaded(ratings);
    const cuda::Buffer<std::uint32_t> chosen(heads * stride), order(heads * stride);
    cuda::StepRule rule{};
    rule.importance = cuda::Importance::score;
    cuda::launch_select(
        {device.rows(), device.states(), asked.data(), rated.data(), chosen.data(), order.data(), rule,
         static_cast<std::uint32_t>(stride), static_cast<std::uint32_t>(heads)},
        {});
    for (std::size_t h = 0; h < heads; ++h) {
      const auto row = ratings.begin() + static_cast<std::ptrdiff_t>(h * stride);
      const auto expected = best(plain[h].score, {row, row + static_cast<std::ptrdiff_t>(stride)}, ask[h]);
      std::vector<std::uint32_t> got(expected.size());
      cuda::copy_out(got.data(), order.data() + h * stride, got.size() * sizeof(std::uint32_t), {});
      cuda::synchronise({});
      ASSERT_EQ(got, expected) << "round " << round << " head " << h << ": slots " << ask[h].first << " to "
                               << ask[h].last << ", " << ask[h].by_score << " by score, " << ask[h].by_rating
                               << " by rating";
    }
  }
}

}  // namespace
}  // namespace zeromerge::test
