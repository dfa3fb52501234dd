// Decoded tokens that leave in blocks (Areas::block): against lists in double, and laws for merges and packed
// storage.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/isa.hpp"
#include "support/rounding.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::HeldHead;
using test::Tokens;

const Geometry kGeometry{.query_heads = 6, .kv_heads = 2, .head_dim = 32};
constexpr std::size_t kBudget = 60, kSinks = 4, kRecent = 20;

std::string settings(std::size_t block, const std::string& more = ",merge=drop") {
  return "budget=60,sinks=4,tail=20,score=exact,evict=" + std::to_string(block) + more;
}

// One kv head whose entries leave `block` at a time, as a list in order of arrival.
class BlockHead {
 public:
  BlockHead(const Tokens& tokens, std::size_t kv_head, std::size_t block)
      : t_(tokens), kv_(kv_head), block_(block) {}

  void see(std::size_t token) {
    kept_.push_back({token, 0.0});
    for (Entry& e : kept_) e.score *= static_cast<double>(0.98f);
    for (std::size_t m = 0; m < t_.g.group(); ++m) {
      const auto a = test::attention(
          t_.query(token, kv_ * t_.g.group() + m), t_.g.head_dim, kept_.size(),
          static_cast<double>(t_.g.attention_scale()), 0.0,
          [&](std::size_t j) { return t_.key(kept_[j].position, kv_); },
          [&](std::size_t j) { return t_.value(kept_[j].position, kv_); }, [](std::size_t) { return 0.0; });
      for (std::size_t j = 0; j < kept_.size(); ++j) kept_[j].score += a.probability[j];
    }
  }
  // The newest of a prompt and the best of the others; the last block's places stay free.
  void end_prompt() {
    if (kept_.size() <= kBudget) return;
    while (kept_.size() > kBudget - (block_ - 1)) leave(kept_.size() - kRecent);
  }
  // Tokens of a full block enter the recent ones in turn, and each time the least of the others leaves.
  void decode(std::size_t token) {
    see(token);
    if (kept_.size() <= kBudget) return;
    for (std::size_t fresh = block_; fresh-- > 0;) leave(kept_.size() - fresh - kRecent);
  }

  std::vector<std::size_t> positions() const {
    std::vector<std::size_t> p;
    for (const Entry& e : kept_) p.push_back(e.position);
    return p;
  }
  double gap() const { return gap_; }  // the least relative distance that a choice hung on

 private:
  struct Entry {
    std::size_t position;
    double score;
  };
  void leave(std::size_t last) {
    std::size_t victim = kSinks;
    for (std::size_t j = kSinks; j < last; ++j)
      if (kept_[j].score < kept_[victim].score) victim = j;
    for (std::size_t j = kSinks; j < last; ++j)
      if (j != victim) gap_ = std::min(gap_, kept_[j].score / kept_[victim].score - 1.0);
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(victim));
  }
  const Tokens& t_;
  std::size_t kv_, block_;
  std::vector<Entry> kept_;
  double gap_ = 1.0;
};

std::vector<std::size_t> sorted_positions(const HeldHead& head) {
  std::vector<std::size_t> p(head.position.begin(), head.position.end());
  std::sort(p.begin(), p.end());
  return p;
}

// Slots: sinks first, then what has been competed for, then the ring in turn from its oldest place on, then
// the tokens of the block that is not full yet.
void expect_order(const HeldHead& head, const HeadState& state, std::size_t tokens) {
  for (std::size_t j = 0; j < std::min(kSinks, tokens); ++j) ASSERT_EQ(head.position[j], j);
  if (!state.ring) {
    for (std::size_t i = 1; i <= std::min(kRecent, tokens); ++i)
      ASSERT_EQ(head.position[head.size - i], tokens - i);
    return;
  }
  const std::size_t full = kBudget - state.division.slack;
  ASSERT_GE(head.size, full);
  for (std::size_t i = full; i < head.size; ++i)
    ASSERT_EQ(head.position[i], tokens - (head.size - i)) << "slot " << i;
  for (std::size_t i = 0; i < kRecent; ++i)
    ASSERT_EQ(head.position[full - kRecent + (state.ring_next + i) % kRecent],
              tokens - (head.size - full) - kRecent + i)
        << "place " << i << " of the ring";
}

// Prompts and decoded tokens in turn, every step of them compared.
void compare(std::size_t block, const std::vector<std::size_t>& turns, std::uint64_t seed) {
  std::size_t count = 0;
  for (const std::size_t n : turns) count += n;
  const Tokens t(kGeometry, count, seed);
  auto cache = test::make(settings(block), kGeometry);
  auto& layer = cache.layer(0);
  std::vector<BlockHead> expected = {{t, 0, block}, {t, 1, block}};
  const auto check = [&] {
    for (std::size_t h = 0; h < 2; ++h) {
      SCOPED_TRACE("token " + std::to_string(layer.tokens()) + " head " + std::to_string(h));
      ASSERT_GT(expected[h].gap(), 1e-6) << "take another seed: a choice hangs on rounding";
      const HeldHead head = test::held(layer.head(h));
      ASSERT_LE(head.size, kBudget);
      ASSERT_EQ(sorted_positions(head), expected[h].positions());
      expect_order(head, layer.state(h), layer.tokens());
    }
  };
  for (std::size_t turn = 0, token = 0; turn < turns.size(); ++turn) {
    const bool prompt = turn % 2 == 0;
    if (prompt && turns[turn] != 0) {
      (void)test::prefill(layer, t, token, turns[turn]);
      layer.finish_prompt();
      for (BlockHead& head : expected) {
        for (std::size_t i = 0; i < turns[turn]; ++i) head.see(token + i);
        head.end_prompt();
      }
      token += turns[turn];
      check();
    }
    for (std::size_t i = 0; !prompt && i < turns[turn]; ++i, ++token) {
      (void)test::decode(layer, t, token);
      for (BlockHead& head : expected) head.decode(token);
      check();
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(BlockEvict, HundredsOfTokensLeaveAsInLists) {
  for (const std::size_t block : {1u, 2u, 7u, 16u, 30u})
    for (const std::size_t prompt : {0u, 10u, 50u, 60u, 61u, 150u}) {
      SCOPED_TRACE("block " + std::to_string(block) + " prompt " + std::to_string(prompt));
      compare(block, {prompt, 220}, 100 + prompt);
      if (HasFatalFailure()) return;
    }
}

TEST(BlockEvict, APromptMayFollowInTheMidstOfABlock) {
  for (const std::size_t more : {1u, 3u, 15u, 30u, 80u})
    for (const std::size_t decoded : {30u, 32u, 37u, 41u}) {
      SCOPED_TRACE(std::to_string(decoded) + " decoded, then a prompt of " + std::to_string(more));
      compare(16, {90, decoded, more, 60, more, 20}, 7 * decoded + more);
      if (HasFatalFailure()) return;
    }
}

TEST(BlockEvict, ABlockOfOneIsTheDefault) {
  const Tokens t(kGeometry, 260, 5);
  for (const char* more : {",merge=drop", ",residual=3"}) {
    auto one = test::make(settings(1, more), kGeometry);
    auto none = test::make(std::string("budget=60,sinks=4,tail=20,score=exact") + more, kGeometry);
    EXPECT_TRUE(test::same_bits(test::run(one.layer(0), t, 100), test::run(none.layer(0), t, 100)));
    EXPECT_EQ(difference(test::held_layer(one.layer(0), 2), test::held_layer(none.layer(0), 2)), "");
  }
}

// Merged entries take the mass of all that leave, at the end of a prompt and in blocks.
TEST(BlockEvict, MassIsKeptAndTheBudgetToo) {
  const Tokens t(kGeometry, 400, 6);
  for (const std::size_t prompt : {0u, 30u, 58u, 150u})
    for (const char* residual : {",residual=1", ",residual=5", ",residual=30%,metric=l2"}) {
      auto cache = test::make(settings(16, residual), kGeometry);
      auto& layer = cache.layer(0);
      if (prompt != 0) (void)test::prefill(layer, t, 0, prompt);
      for (std::size_t token = prompt; token < prompt + 200; ++token) {
        (void)test::decode(layer, t, token);
        for (std::size_t h = 0; h < 2; ++h) {
          const HeldHead head = test::held(layer.head(h));
          ASSERT_LE(head.size, kBudget);
          double mass = 0.0;
          for (const float m : head.mass) mass += static_cast<double>(m);
          ASSERT_FLOAT_EQ(mass, static_cast<double>(token + 1)) << residual << " prompt " << prompt;
          const auto p = sorted_positions(head);
          ASSERT_TRUE(std::adjacent_find(p.begin(), p.end()) == p.end()) << "two entries of one token";
          for (std::size_t i = 0; i < std::min(kRecent, p.size()); ++i)
            ASSERT_EQ(p[p.size() - 1 - i], token - i) << residual << " prompt " << prompt;
        }
      }
    }
}

// Blocks cross the packed groups of 32 in both directions.
// A token that comes after a block has left is not rounded to 4 bits before it is even looked at.
TEST(BlockEvict, TheNewestTokensAreNotPacked) {
  const test::IsaScope exact(std::min(isa(), Isa::avx512));  // above it queries are rounded to 8 bits
  const Tokens t(kGeometry, 300, 8);
  for (const std::size_t block : {1u, 5u, 16u, 30u}) {
    auto cache = test::make<q4>(settings(block), kGeometry);
    auto& layer = cache.layer(0);
    (void)test::prefill(layer, t, 0, 100);
    layer.finish_prompt();
    for (std::size_t token = 100; token < t.count; ++token) {
      std::vector<HeldHead> before;
      for (std::size_t h = 0; h < 2; ++h) {
        before.push_back(test::with_token(test::held(layer.head(h)), t, token, h));
        for (auto* rows : {&before[h].key, &before[h].value})
          test::keep_in_bytes(rows->data() + rows->size() - kGeometry.head_dim, kGeometry.head_dim);
      }
      const auto out = test::decode(layer, t, token);
      for (std::size_t q = 0; q < 6; ++q)
        ASSERT_LE(test::row_error(out.data() + q * kGeometry.head_dim,
                                  test::attention_over(before[q / 3], t, token, q)),
                  5e-3)
            << "block " << block << " token " << token;
    }
  }
}

TEST(BlockEvict, PackedEntriesAreThoseThatAreAttendedTo) {
  const Tokens t(kGeometry, 420, 7);
  for (const char* more : {",merge=drop", ",residual=2"})
    for (const std::size_t prompt : {5u, 60u, 130u}) {
      auto cache = test::make<q4>(settings(16, more), kGeometry);
      auto& layer = cache.layer(0);
      (void)test::prefill(layer, t, 0, prompt);
      for (std::size_t token = prompt; token < prompt + 220; ++token) {
        if (token == prompt + 150) (void)test::prefill(layer, t, token++, 1);
        (void)test::decode(layer, t, token);
        std::vector<float> out(kGeometry.query_heads * kGeometry.head_dim);
        layer.attend(t.queries(token + 1, 1), out_rows(out.data(), 1, 6, kGeometry.head_dim));
        for (std::size_t h = 0; h < 2; ++h) {
          const HeldHead head = test::held(layer.head(h));
          ASSERT_LE(head.size, kBudget);
          if (layer.state(h).residuals == 0) expect_order(head, layer.state(h), token + 1);
          for (std::size_t g = 0; g < 3; ++g)
            ASSERT_LE(test::row_error(out.data() + (h * 3 + g) * kGeometry.head_dim,
                                      test::attention_over(head, t, token + 1, h * 3 + g)),
                      5e-2)
                << more << " prompt " << prompt << " token " << token;
          // What is held is the tokens' own, but for a grid of 16 steps.
          for (std::size_t j = 0; j < head.size; ++j)
            for (std::size_t d = 0; d < kGeometry.head_dim && (head.mass.empty() || head.mass[j] == 1.0f);
                 ++d)
              ASSERT_NEAR(head.key[j * kGeometry.head_dim + d], t.key(head.position[j], h)[d], 1.5)
                  << "slot " << j << " token " << token;
        }
      }
    }
}

}  // namespace
}  // namespace zeromerge
