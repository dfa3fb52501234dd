#include "zeromerge/merge/key_clusters.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "support/held.hpp"
#include "zeromerge/merge/merges.hpp"

namespace zeromerge {
namespace {

using Groups = std::vector<std::vector<std::size_t>>;
using test::Tokens;

// Entries with these keys, [n][dim].
Head<float> with_keys(const std::vector<float>& keys, std::size_t dim) {
  static ByteLedger ledger;
  Head<float> head(dim, {true, true}, &ledger);
  head.reserve(keys.size() / dim);
  for (std::size_t j = 0; j < keys.size() / dim; ++j)
    head.append(keys.data() + j * dim, keys.data() + j * dim, static_cast<std::uint32_t>(j));
  return head;
}

std::vector<std::size_t> all_slots(std::size_t n) {
  std::vector<std::size_t> slots(n);
  std::iota(slots.begin(), slots.end(), std::size_t{0});
  return slots;
}

// The header's words in double: centres spread evenly over the slots, five rounds, ties to the lower centre.
Groups lloyd(const std::vector<float>& keys, std::size_t dim, const std::vector<std::size_t>& slots,
             std::size_t count) {
  count = std::min(count, slots.size());
  const auto key = [&](std::size_t i, std::size_t d) {
    return static_cast<double>(keys[slots[i] * dim + d]);
  };
  std::vector<std::vector<double>> centres(count, std::vector<double>(dim));
  for (std::size_t c = 0; c < count; ++c)
    for (std::size_t d = 0; d < dim; ++d) centres[c][d] = key((2 * c + 1) * slots.size() / (2 * count), d);
  Groups groups;
  for (int round = 0; round < 5; ++round) {
    groups.assign(count, {});
    std::vector<std::vector<double>> sums(count, std::vector<double>(dim, 0.0));
    for (std::size_t i = 0; i < slots.size(); ++i) {
      std::vector<double> distance(count, 0.0);
      for (std::size_t c = 0; c < count; ++c)
        for (std::size_t d = 0; d < dim; ++d) distance[c] += std::pow(key(i, d) - centres[c][d], 2.0);
      const auto c =
          static_cast<std::size_t>(std::min_element(distance.begin(), distance.end()) - distance.begin());
      groups[c].push_back(slots[i]);
      for (std::size_t d = 0; d < dim; ++d) sums[c][d] += key(i, d);
    }
    for (std::size_t c = 0; c < count; ++c)
      for (std::size_t d = 0; d < dim && !groups[c].empty(); ++d)
        centres[c][d] = sums[c][d] / static_cast<double>(groups[c].size());
  }
  std::erase_if(groups, [](const auto& group) { return group.empty(); });
  return groups;
}

TEST(KeyClusters, FollowsThePlainAlgorithm) {
  test::Random random(1);
  for (int i = 0; i < 40; ++i) {
    const std::size_t dim = random.between(1, 40), n = random.between(1, 200), count = random.between(1, 12);
    const auto keys = test::normals(random, n * dim);
    std::vector<std::size_t> slots;
    for (std::size_t j = 0; j < n; ++j)
      if (random.uniform() < 0.7) slots.push_back(j);
    EXPECT_EQ(key_clusters(with_keys(keys, dim), std::span<const std::size_t>(slots), count),
              lloyd(keys, dim, slots, count))
        << n << " keys of " << dim << " channels in " << count;
  }
}

// Three clouds whose members come in turn; the centres start at entries 16, 48 and 80, one of each cloud.
TEST(KeyClusters, FindsCloudsThatNeighboursInTimeDoNotForm) {
  test::Random random(2);
  constexpr std::size_t kDim = 8;
  std::vector<float> keys;
  Groups expected(3);
  for (std::size_t j = 0; j < 96; ++j) {
    const std::size_t cloud = (j / 16 + j) % 3;
    expected[cloud].push_back(j);
    auto key = test::normals(random, kDim, 0.1);
    key[cloud] += 5.0f;
    keys.insert(keys.end(), key.begin(), key.end());
  }
  const auto slots = all_slots(96);
  Groups found = key_clusters(with_keys(keys, kDim), std::span<const std::size_t>(slots), 3);
  std::sort(found.begin(), found.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(found, expected);
}

TEST(KeyClusters, GroupsAreInOrderNeverEmptyAndHoldEverySlotOnce) {
  test::Random random(3);
  for (const std::size_t n : {0u, 1u, 2u, 5u, 64u})
    for (const std::size_t count : {1u, 2u, 5u, 100u})
      for (const bool alike : {false, true}) {
        const std::vector<float> keys =
            alike ? std::vector<float>(n * 4, 0.5f) : test::normals(random, n * 4);
        const auto slots = all_slots(n);
        const Groups groups = key_clusters(with_keys(keys, 4), std::span<const std::size_t>(slots), count);
        EXPECT_LE(groups.size(), std::min(n, count));
        EXPECT_TRUE(!alike || n == 0 || groups.size() == 1) << "ties go to the lower centre";
        std::vector<std::size_t> all;
        for (const auto& group : groups) {
          EXPECT_FALSE(group.empty());
          EXPECT_TRUE(std::is_sorted(group.begin(), group.end()));
          all.insert(all.end(), group.begin(), group.end());
        }
        std::sort(all.begin(), all.end());
        EXPECT_EQ(all, slots);
      }
}

TEST(KeyClusters, ThereAreNoneWhereNoneMayBe) {
  const auto slots = all_slots(3);
  const std::vector<float> keys(3 * 4, 0.5f);
  EXPECT_TRUE(key_clusters(with_keys(keys, 4), std::span<const std::size_t>(slots), 0).empty());
}

// ---- at the end of a prompt

constexpr std::size_t kPrompt = 150;
const Geometry kGeometry{.query_heads = 4, .kv_heads = 2, .head_dim = 12};

TEST(KeyClusters, MergedEntriesAreTheMeansOfTheClustersOfTheLeavers) {
  const Tokens t(kGeometry, kPrompt, 4);
  auto dropped = test::make("budget=33,sinks=4,tail=10,merge=drop", kGeometry);
  auto merged = test::make("budget=40,sinks=4,tail=10,residual=7,groups=clusters", kGeometry);
  for (auto* cache : {&dropped, &merged}) {
    (void)test::prefill(cache->layer(0), t, 0, kPrompt);
    cache->finish_prompt();
  }
  for (std::size_t h = 0; h < 2; ++h) {
    const auto kept = test::held(dropped.layer(0).head(h));  // the same but for the merged ones
    const auto head = test::held(merged.layer(0).head(h));
    std::vector<std::size_t> leavers;
    for (std::size_t j = 0; j < kPrompt; ++j)
      if (std::find(kept.position.begin(), kept.position.end(), j) == kept.position.end())
        leavers.push_back(j);
    std::vector<float> keys;
    for (std::size_t j = 0; j < kPrompt; ++j) keys.insert(keys.end(), t.key(j, h), t.key(j, h) + 12);
    const Groups groups = lloyd(keys, 12, leavers, 7);
    ASSERT_EQ(head.size, 33 + groups.size());
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const std::size_t slot = 4 + g;
      EXPECT_EQ(head.mass[slot], static_cast<float>(groups[g].size()));
      EXPECT_EQ(head.position[slot], groups[g].front());
      EXPECT_NEAR(head.bias[slot], 0.6 * std::log(static_cast<double>(groups[g].size())), 1e-6);
      for (std::size_t d = 0; d < 12; ++d) {
        double key = 0.0, value = 0.0;
        for (const std::size_t j : groups[g]) {
          key += static_cast<double>(t.key(j, h)[d]) / static_cast<double>(groups[g].size());
          value += static_cast<double>(t.value(j, h)[d]) / static_cast<double>(groups[g].size());
        }
        EXPECT_NEAR(head.key[slot * 12 + d], key, 1e-5);
        EXPECT_NEAR(head.value[slot * 12 + d], value, 1e-5);
      }
    }
  }
}

// Clusters that come out empty leave places, which decoded tokens fill; a later prompt joins what is there.
TEST(KeyClusters, FewerClustersThanPlacesGoOnWithinTheBudget) {
  Tokens t(kGeometry, 400, 5);
  for (std::size_t i = 0; i < t.k.size(); ++i) t.k[i] = i % 12 == 0 ? 1.0f : 0.25f;  // one cluster
  auto cache = test::make("budget=40,sinks=4,tail=10,residual=7,groups=clusters", kGeometry);
  auto& layer = cache.layer(0);
  std::size_t token = 0;
  for (const std::size_t prompt : {kPrompt, std::size_t{30}, std::size_t{2}}) {
    (void)test::prefill(layer, t, token, prompt);
    layer.finish_prompt();
    token += prompt;
    for (std::size_t i = 0; i < 40; ++i) {
      (void)test::decode(layer, t, token++);
      for (std::size_t h = 0; h < 2; ++h) {
        const auto head = test::held(layer.head(h));
        ASSERT_LE(head.size, 40u);
        double mass = 0.0;
        for (const float m : head.mass) mass += static_cast<double>(m);
        ASSERT_EQ(mass, static_cast<double>(token));
      }
    }
  }
}

}  // namespace
}  // namespace zeromerge
