// The compressed form of heads written to other memory, against plain loops in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "support/device_heads.hpp"
#include "zeromerge/cuda/head_plan.hpp"
#include "zeromerge/cuda/launches.hpp"

namespace zeromerge::test {
namespace {

struct Settings {
  std::size_t head_dim;
  bool sum_scores;
};

cuda::StepRule one_at_a_time() {
  cuda::StepRule rule{};
  rule.block = 1;
  return rule;
}

// Masses, merged entries at the front and a turned ring: what a head can look like when a prompt ends.
PlainHead used_head(Random& random, std::size_t entries, std::size_t head_dim, std::uint32_t sinks,
                    std::uint32_t residuals) {
  PlainHead head = random_head(random, entries, head_dim, true);
  for (std::size_t j = 0; j < entries; ++j) {
    if (j >= sinks && j < sinks + residuals) continue;
    head.mass[j] = 1.0f;
    head.bias[j] = 0.0f;
  }
  head.state.sinks = sinks;
  head.state.residuals = residuals;
  return head;
}

// As the kernels' page says it: what was at the front, merged entries, the kept, the last.
class Expected {
 public:
  Expected(const PlainHead& from, const cuda::CompactHead& c, std::vector<std::uint32_t> order,
           bool sum_scores)
      : from_(from), plan_(c), order_(std::move(order)), sum_scores_(sum_scores) {}

  // Slots of the old head that end in `at`, in the order in which they are added.
  std::vector<std::size_t> sources(std::size_t at) const {
    const std::size_t merged = plan_.front + plan_.fresh;
    std::vector<std::size_t> slots;
    if (at < plan_.front) slots.push_back(at);
    if (at >= merged)
      slots.push_back(at - merged < plan_.kept ? order_[at - merged]
                                               : plan_.last + (at - merged - plan_.kept));
    std::size_t leaver = 0;
    for (std::size_t g = 0; g < plan_.groups; ++g) {
      const std::size_t size = plan_.leavers / plan_.groups + (g < plan_.leavers % plan_.groups ? 1 : 0);
      if (plan_.sinks + (plan_.front - plan_.sinks + g) % plan_.residual == at)
        for (std::size_t i = 0; i < size; ++i) slots.push_back(order_[plan_.kept + leaver + i]);
      leaver += size;
    }
    return slots;
  }
  double mass(const std::vector<std::size_t>& slots) const {
    double sum = 0.0;
    for (const std::size_t j : slots) sum += static_cast<double>(from_.mass[j]);
    return sum;
  }
  double mean(const std::vector<std::vector<float>>& rows, const std::vector<std::size_t>& slots,
              std::size_t d) const {
    double sum = 0.0;
    for (const std::size_t j : slots)
      sum += static_cast<double>(from_.mass[j]) * static_cast<double>(rows[j][d]);
    return sum / mass(slots);
  }
  double score(const std::vector<std::size_t>& slots) const {
    double sum = 0.0;
    double most = 0.0;
    for (const std::size_t j : slots) {
      sum += static_cast<double>(from_.score[j]);
      most = std::max(most, static_cast<double>(from_.score[j]));
    }
    return sum_scores_ ? sum : most;
  }

 private:
  const PlainHead& from_;
  cuda::CompactHead plan_;
  std::vector<std::uint32_t> order_;
  bool sum_scores_;
};

void expect_compacted(const PlainHead& got, const PlainHead& from, const Expected& expected,
                      std::size_t head_dim) {
  for (std::size_t at = 0; at < got.size(); ++at) {
    const auto slots = expected.sources(at);
    ASSERT_FALSE(slots.empty()) << "slot " << at;
    std::uint32_t oldest = from.position[slots[0]];
    for (const std::size_t j : slots) oldest = std::min(oldest, from.position[j]);
    EXPECT_EQ(got.position[at], oldest) << "slot " << at;
    EXPECT_NEAR(got.mass[at], expected.mass(slots), 1e-6 * expected.mass(slots)) << "slot " << at;
    EXPECT_NEAR(got.score[at], expected.score(slots), 1e-5) << "slot " << at;
    const double bias =
        slots.size() == 1 ? static_cast<double>(from.bias[slots[0]]) : 0.6 * std::log(expected.mass(slots));
    EXPECT_NEAR(got.bias[at], bias, 1e-5) << "slot " << at;
    const double rounding = slots.size() == 1 ? 0.0 : 1.0 / 1024;
    for (std::size_t d = 0; d < head_dim; ++d) {
      const double key = expected.mean(from.keys, slots, d);
      const double value = expected.mean(from.values, slots, d);
      ASSERT_NEAR(got.keys[at][d], key, rounding * std::abs(key) + 1e-6) << "slot " << at << " channel " << d;
      ASSERT_NEAR(got.values[at][d], value, rounding * std::abs(value) + 1e-6)
          << "slot " << at << " channel " << d;
    }
  }
}

class Compact : public DeviceTest, public testing::WithParamInterface<Settings> {};

TEST_P(Compact, WritesWhatStaysAndFoldsTheRest) {
  const auto [head_dim, sum_scores] = GetParam();
  Random random(head_dim);
  for (std::size_t round = 0; round < 12; ++round) {
    const std::size_t count = random.between(1, 3);
    const std::uint32_t stride = 150;
    std::vector<PlainHead> plain, empty;
    std::vector<cuda::HeadPlan> plans;
    std::vector<std::uint32_t> order(count * stride);
    for (std::size_t h = 0; h < count; ++h) {
      const std::size_t residual = random.between(1, 6);
      const Division d{.capacity = 12 + residual + random.between(1, 40),
                       .sinks = random.between(0, 4),
                       .residual = residual,
                       .recent = random.between(2, 6)};
      const auto sinks = cuda::device_count(d.sinks);
      plain.push_back(used_head(random, d.capacity + random.between(1, 80), head_dim, sinks,
                                cuda::device_count(random.between(0, residual))));
      for (auto* rows : {&plain[h].keys, &plain[h].values})  // as they will be stored
        for (auto& row : *rows)
          for (float& x : row) x = to_f32(from_f32<f16>(x));
      plans.push_back(cuda::plan_head(plain[h].state, d, one_at_a_time(), false));
      // Any choice will do: the kept in front, both rising.
      const auto& ask = plans[h].select;
      std::vector<std::uint32_t> slots(ask.last - ask.first);
      std::iota(slots.begin(), slots.end(), ask.first);
      for (std::size_t i = slots.size(); i > 1; --i) std::swap(slots[i - 1], slots[random.between(0, i - 1)]);
      std::sort(slots.begin(), slots.begin() + ask.by_score);
      std::sort(slots.begin() + ask.by_score, slots.end());
      std::copy(slots.begin(), slots.end(), order.begin() + static_cast<std::ptrdiff_t>(h * stride));
      empty.push_back(random_head(random, plans[h].after.size, head_dim, true));
    }
    const DeviceHeads<f16> from(plain, head_dim, true, true, 0);
    const DeviceHeads<f16> to(empty, head_dim, true, true, 0);
    std::vector<cuda::HeadRows> from_rows(count), to_rows(count);
    cuda::copy_out(from_rows.data(), from.rows(), count * sizeof(cuda::HeadRows), {});
    cuda::copy_out(to_rows.data(), to.rows(), count * sizeof(cuda::HeadRows), {});
    cuda::synchronise({});
    std::vector<cuda::CompactHead> compact;
    unsigned entries = 0;
    unsigned groups = 0;
    for (std::size_t h = 0; h < count; ++h) {
      compact.push_back(plans[h].compact);
      compact[h].from = from_rows[h];
      compact[h].to = to_rows[h];
      entries = std::max(entries, compact[h].size);
      groups = std::max(groups, compact[h].groups);
    }
    const auto heads = uploaded(compact);
    const auto list = uploaded(order);
    const cuda::CompactArguments a{
        heads.data(), list.data(),         stride, cuda::device_count(count), cuda::device_count(head_dim),
        0.6f,         sum_scores ? 1u : 0u};
    using Launch = cuda::detail::PromptLaunches<f16, f16>;
    Launch::gather(a, entries, {});
    Launch::fold(a, groups, {});
    const auto got = to.read();
    for (std::size_t h = 0; h < count; ++h) {
      SCOPED_TRACE("round " + std::to_string(round) + " head " + std::to_string(h));
      const auto row = order.begin() + static_cast<std::ptrdiff_t>(h * stride);
      expect_compacted(got[h], plain[h], {plain[h], compact[h], {row, row + stride}, sum_scores}, head_dim);
      if (HasFatalFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Compact,
                         testing::Values(Settings{64, false}, Settings{80, true}, Settings{128, false},
                                         Settings{256, true}),
                         [](const auto& each) {
                           return "Dim" + std::to_string(each.param.head_dim) +
                                  (each.param.sum_scores ? "SumOfScores" : "");
                         });

// A turned ring is put into the order of arrival on the way.
TEST_F(DeviceTest, MovingAHeadStraightensItsRing) {
  Random random(5);
  PlainHead plain = used_head(random, 40, 64, 2, 1);
  plain.state.capacity = 40;
  plain.state.recent = 7;
  plain.state.ring = 1;
  plain.state.ring_next = 3;
  const DeviceHeads<bf16> from({plain}, 64, true, true, 0);
  const DeviceHeads<bf16> to({random_head(random, 40, 64, true)}, 64, true, true, 20);
  std::vector<cuda::CompactHead> one{cuda::move_head(plain.state, one_at_a_time())};
  cuda::copy_out(&one[0].from, from.rows(), sizeof(cuda::HeadRows), {});
  cuda::copy_out(&one[0].to, to.rows(), sizeof(cuda::HeadRows), {});
  cuda::synchronise({});
  const auto heads = uploaded(one);
  cuda::detail::PromptLaunches<bf16, bf16>::gather({heads.data(), nullptr, 40, 1, 64, 0.6f, 0}, 40, {});
  const PlainHead before = from.read()[0];
  const PlainHead after = to.read()[0];
  for (std::size_t at = 0; at < 40; ++at) {
    const std::size_t slot = at < 33 ? at : 33 + (at - 33 + 3) % 7;
    EXPECT_EQ(after.keys[at], before.keys[slot]) << at;
    EXPECT_EQ(after.values[at], before.values[slot]) << at;
    EXPECT_EQ(after.position[at], before.position[slot]) << at;
    EXPECT_EQ(after.mass[at], before.mass[slot]) << at;
  }
}

}  // namespace
}  // namespace zeromerge::test
