// The cache on the device, or its emulation, against the one on the host: the same tokens, the same outputs,
// the same entries in the same slots.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/device_cache.hpp"

namespace zeromerge::test {
namespace {

Geometry geometry(std::size_t kv_heads, std::size_t group, std::size_t head_dim) {
  return {.layers = 1, .query_heads = kv_heads * group, .kv_heads = kv_heads, .head_dim = head_dim};
}

// A cache on the host and one on the device with the same policy and one layer.
template <class P>
struct Pair {
  Geometry g;
  KvCache<P> host;
  cuda::KvCache<P> device;
  std::vector<Tokens> tokens;      // [sequences]
  std::vector<std::size_t> taken;  // [sequences]

  Pair(const Geometry& geometry, const P& policy, std::size_t sequences, std::size_t longest,
       std::uint64_t seed)
      : g(geometry),
        host(geometry, policy, CacheOptions{.sequences = sequences}),
        device(geometry, policy, cuda::CacheOptions{.sequences = sequences, .longest = longest}),
        taken(sequences, 0) {
    for (std::size_t s = 0; s < sequences; ++s) tokens.emplace_back(geometry, longest, seed + s);
  }

  void prompt(std::size_t s, std::size_t n) {
    const auto expected = prefill(host.layer(0, s), tokens[s], taken[s], n);
    const auto got = prefill_device(device, 0, s, tokens[s], taken[s], n);
    EXPECT_LT(difference(got, expected.data()), 1e-3) << "sequence " << s << ", prompt from " << taken[s];
    taken[s] += n;
  }
  void finish(std::size_t s) {
    host.finish_prompt(s);
    device.finish_prompt(s, {});
  }

  // One token for each of these sequences.
  void step(const std::vector<std::size_t>& sequences, const cuda::Batch& batch, StepBuffers& buffers) {
    BatchTokens given;
    std::vector<float> expected;
    for (const std::size_t s : sequences) {
      given.add(tokens[s], taken[s]);
      const auto out = decode(host.layer(0, s), tokens[s], taken[s]++);
      expected.insert(expected.end(), out.begin(), out.end());
    }
    buffers.fill(given, {});
    buffers.decode(device, 0, batch, {});
    const auto got = buffers.out({});
    ASSERT_LT(difference(got, expected.data()), 1e-3) << "after " << taken[sequences[0]] << " tokens";
  }
  void steps(const std::vector<std::size_t>& sequences, std::size_t count) {
    const cuda::Batch batch = device.batch(sequences, {});
    StepBuffers buffers(g, sequences.size());
    for (std::size_t i = 0; i < count; ++i) {
      step(sequences, batch, buffers);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }

  // Every slot of every head holds the same entry.
  void expect_equal_heads(double tolerance = 2e-3) {
    for (std::size_t s = 0; s < tokens.size(); ++s)
      for (std::size_t h = 0; h < g.kv_heads; ++h) {
        const auto& expected = host.layer(0, s).head(h);
        const cuda::HeadCopy got = device.head(0, s, h, {});
        ASSERT_EQ(got.entries(), expected.size()) << "sequence " << s << " head " << h;
        std::vector<float> row(g.head_dim);
        for (std::size_t j = 0; j < expected.size(); ++j) {
          const std::string where =
              "sequence " + std::to_string(s) + " head " + std::to_string(h) + " slot " + std::to_string(j);
          ASSERT_EQ(got.position[j], expected.position()[j]) << where;
          if (expected.fields().score) {
            EXPECT_NEAR(got.score[j], expected.score()[j], 1e-3 * (expected.score()[j] + 1e-3)) << where;
          }
          if (expected.fields().mass) {
            EXPECT_EQ(got.mass[j], expected.mass()[j]) << where;
          }
          expected.read_key(j, row.data());
          EXPECT_LT(difference({got.keys.begin() + j * g.head_dim, got.keys.begin() + (j + 1) * g.head_dim},
                               row.data()),
                    tolerance)
              << where;
          expected.read_value(j, row.data());
          EXPECT_LT(
              difference({got.values.begin() + j * g.head_dim, got.values.begin() + (j + 1) * g.head_dim},
                         row.data()),
              tolerance)
              << where;
        }
      }
  }
};

TEST(DeviceCache, AgreesWithTheHostOverAPromptAndHundredsOfSteps) {
  Pair<ZeroMergeOf<f16>> pair(geometry(2, 2, 64), policy<f16>("budget=40,tail=12,residual=2"), 2, 600, 1);
  pair.prompt(0, 130);
  pair.prompt(1, 70);
  pair.finish(0);
  pair.finish(1);
  pair.expect_equal_heads();
  pair.steps({0, 1}, 300);
  pair.expect_equal_heads();
}

}  // namespace
}  // namespace zeromerge::test
