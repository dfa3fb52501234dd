// A budget: what it holds, and what it costs.
#include <set>

#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

class Budget : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    prompt = engine.text(0, 200);
    rest = engine.text(200, 16);
  }

  // The prompt and its continuation under a policy; the statistics of the end.
  Rows run_under(const char* policy, zeromerge_statistics& statistics) {
    engine.policy(policy);
    engine.reset_statistics();
    Context context{Options{}};
    context.feed(prompt);
    context.feed_each(rest);
    statistics = engine.statistics();
    return context.take();
  }

  std::vector<llama_token> prompt;
  std::vector<llama_token> rest;
};

TEST_F(Budget, HoldsItsShare) {
  zeromerge_statistics full;
  zeromerge_statistics half;
  zeromerge_statistics fifth;
  const Rows expected = run_under("full", full);
  const Rows with_half = run_under("zeromerge:budget=50%,rollback=0", half);
  const Rows with_fifth = run_under("zeromerge:budget=20%,rollback=0", fifth);
  EXPECT_EQ(full.entries, 216 * engine.heads());
  // Of all tokens seen, those that were decoded among them.
  EXPECT_EQ(half.entries, 108 * engine.heads());
  EXPECT_EQ(fifth.entries, 43 * engine.heads());
  EXPECT_EQ(fifth.tokens, full.tokens);
  EXPECT_EQ(fifth.rebuilds, 0u);
  // The workspace does not shrink with the budget, so a little more than the share.
  EXPECT_LT(half.kv_bytes, full.kv_bytes * 6 / 10);
  EXPECT_LT(fifth.kv_bytes, full.kv_bytes * 3 / 10);
  // A prompt is seen whole before it is compressed.
  expect_equal({expected.front()}, {with_half.front()});
  expect_equal({expected.front()}, {with_fifth.front()});
  expect_close(expected, with_half, 0.3);
  expect_close(expected, with_fifth, 1.0);
  EXPECT_GT(difference(expected, with_fifth).mean_kl, 1e-4) << "nothing was left out";
}

TEST_F(Budget, OfEverythingEqualsFull) {
  zeromerge_statistics full;
  zeromerge_statistics all;
  const Rows expected = run_under("full", full);
  const Rows got = run_under("zeromerge:budget=1000", all);
  EXPECT_EQ(all.entries, full.entries);
  expect_equal(expected, got);
  // A share is one of the tokens seen, so nothing leaves while they are decoded.
  const Rows share = run_under("zeromerge:budget=100%", all);
  EXPECT_EQ(all.entries, full.entries);
  expect_equal(expected, share);
}

// Compressed after every part of the prompt, the peak is the budget and one part.
TEST_F(Budget, ThatIsBoundedNeverHoldsThePrompt) {
  zeromerge_statistics full;
  const Rows expected = run_under("full", full);
  engine.policy("zeromerge:budget=40,bounded=1,rollback=0");
  engine.reset_statistics();
  Options options;
  options.ubatch = 40;
  Context context(options);
  context.feed(prompt);
  context.feed_each(rest);
  const zeromerge_statistics bounded = engine.statistics();
  expect_close(expected, context.take(), 1.5);
  EXPECT_EQ(bounded.entries, 40 * engine.heads());
  EXPECT_LT(bounded.kv_bytes_peak, full.kv_bytes * 6 / 10);
}

// What a program is told of each head is what the head keeps.
TEST_F(Budget, IsToldHeadByHead) {
  engine.policy("zeromerge:budget=40");
  Context context{Options{}};
  context.feed(prompt);
  context.feed_each(engine.text(prompt.size(), 1));
  struct Told {
    std::uint64_t heads = 0, entries = 0, last_layer = 0;
    bool rising = true, distinct = true, in_range = true;
  } told;
  engine.get_heads(
      [](void* into, const zeromerge_head* head) {
        Told& t = *static_cast<Told*>(into);
        t.rising = t.rising && head->stream == 0 && head->layer >= t.last_layer;
        t.last_layer = head->layer;
        std::set<std::uint64_t> positions(head->positions, head->positions + head->entries);
        t.distinct = t.distinct && positions.size() == head->entries;
        t.in_range = t.in_range && *positions.rbegin() == head->tokens - 1;
        ++t.heads;
        t.entries += head->entries;
      },
      &told);
  EXPECT_EQ(told.heads, engine.heads());
  EXPECT_EQ(told.entries, 40 * engine.heads());
  EXPECT_TRUE(told.rising);
  EXPECT_TRUE(told.distinct) << "a position is kept twice";
  EXPECT_TRUE(told.in_range) << "the newest token is not the last position";
}

// Heads that differ in need share a layer's budget.
TEST_F(Budget, MayBeSharedOutAmongHeads) {
  zeromerge_statistics full;
  zeromerge_statistics s;
  const Rows expected = run_under("full", full);
  expect_close(expected, run_under("zeromerge:budget=60,heads=adaptive", s), 1.0);
  EXPECT_LE(s.entries, 60 * engine.heads());
  EXPECT_GT(s.entries, 58 * engine.heads());
}

// Each context takes the policy of the moment its sequence starts.
TEST_F(Budget, AppliesFromTheNextSequenceOn) {
  Context context{Options{}};
  context.feed(engine.text(0, 80));
  engine.policy("zeromerge:budget=40");
  context.feed_each(engine.text(80, 2));
  EXPECT_EQ(engine.statistics().entries, 82 * engine.heads());
  context.clear();
  context.feed(engine.text(0, 80));
  context.feed_each(engine.text(80, 2));
  EXPECT_EQ(engine.statistics().entries, 40 * engine.heads());
}

}  // namespace
}  // namespace zeromerge::test
