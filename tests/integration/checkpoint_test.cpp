// Several requests from one compressed past: each is as if it were the only one.
#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

class Checkpoints : public EngineTest {
 protected:
  static constexpr std::size_t kPrompt = 150;

  void TearDown() override { engine.set_reclaim(false); }

  std::size_t layers() const { return static_cast<std::size_t>(llama_model_n_layer(engine.model())); }

  void read_prompt(Context& context) const {
    context.feed(engine.text(0, kPrompt));
    ASSERT_TRUE(engine.finish_prompt());
    context.take();
  }

  // A question of a few tokens, then an answer token by token; long enough to evict.
  Rows request(Context& context, std::size_t number) const {
    context.feed(engine.text(160 + 11 * number, 7 + number));
    context.feed_each(engine.text(30 * number, 12));
    return context.take();
  }
  static std::size_t tokens_of(std::size_t number) { return 7 + number + 12; }

  Rows fresh(std::size_t number) const {
    Context context{Options{}};
    read_prompt(context);
    return request(context, number);
  }

  std::string last_error() const { return engine.last_error(); }
};

TEST_F(Checkpoints, EachRequestFromACheckpointIsAsTheOnlyOne) {
  for (const char* policy : {"zeromerge:budget=10%", "zeromerge:budget=40,storage=q4",
                             "zeromerge:budget=40,merge=drop,replay=50%,refit=64", "full"}) {
    SCOPED_TRACE(policy);
    engine.policy(policy);
    std::vector<Rows> expected;
    for (const std::size_t number : {0u, 1u, 2u}) expected.push_back(fresh(number));
    engine.reset_statistics();
    Context context{Options{}};
    read_prompt(context);
    const std::uint64_t before = engine.statistics().kv_bytes;
    ASSERT_TRUE(engine.checkpoint()) << last_error();
    EXPECT_GT(engine.statistics().kv_bytes, before);
    for (const std::size_t number : {2u, 0u, 1u, 2u}) {
      EXPECT_EQ(expected[number], request(context, number)) << "request " << number;
      ASSERT_TRUE(engine.rollback()) << last_error();
      context.roll_back(tokens_of(number));
      EXPECT_EQ(engine.statistics().tokens, kPrompt * layers());
    }
    EXPECT_EQ(engine.statistics().rebuilds, 0u);
    EXPECT_EQ(engine.statistics().stateless_calls, 0u);
  }
}

TEST_F(Checkpoints, WorkWithTheEnginesCellsGivenBack) {
  engine.policy("zeromerge:budget=10%");
  const Rows first = fresh(0), second = fresh(1);
  engine.set_reclaim(true);
  engine.reset_statistics();
  Context context{Options{}};
  read_prompt(context);
  ASSERT_TRUE(engine.checkpoint());
  for (int round = 0; round < 2; ++round)
    for (const std::size_t number : {0u, 1u}) {
      EXPECT_EQ(number == 0 ? first : second, request(context, number));
      ASSERT_TRUE(engine.rollback()) << last_error();
      context.roll_back(tokens_of(number));
    }
  EXPECT_EQ(engine.statistics().refusals, 0u);
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
}

TEST_F(Checkpoints, ANewOneTakesTheOldOnesPlace) {
  engine.policy("zeromerge:budget=10%");
  Context reference{Options{}};
  read_prompt(reference);
  request(reference, 0);
  const Rows expected = request(reference, 1);
  Context context{Options{}};
  read_prompt(context);
  ASSERT_TRUE(engine.checkpoint());
  request(context, 0);
  ASSERT_TRUE(engine.checkpoint());
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(expected, request(context, 1));
    ASSERT_TRUE(engine.rollback());
    context.roll_back(tokens_of(1));
  }
}

TEST_F(Checkpoints, AreLostWithTheSequence) {
  engine.policy("zeromerge:budget=10%");
  Context context{Options{}};
  read_prompt(context);
  EXPECT_FALSE(engine.rollback());
  EXPECT_NE(last_error().find("no checkpoint"), std::string::npos) << last_error();
  ASSERT_TRUE(engine.checkpoint());
  const std::uint64_t with = engine.statistics().kv_bytes;
  context.clear();
  read_prompt(context);
  EXPECT_LT(engine.statistics().kv_bytes, with);
  EXPECT_FALSE(engine.rollback());
  EXPECT_EQ(request(context, 1), fresh(1)) << "a refused rollback changed something";
}

// The engine's cells are the truth: what a program forgets to drop is read from them.
TEST_F(Checkpoints, ARollbackThatTheEngineDoesNotFollowReadsWhatItShows) {
  engine.policy("full");
  Context context{Options{}};
  Context reference(plain());
  for (Context* c : {&context, &reference}) c->feed(engine.text(0, kPrompt));
  ASSERT_TRUE(engine.finish_prompt());
  ASSERT_TRUE(engine.checkpoint());
  for (Context* c : {&context, &reference}) c->feed(engine.text(200, 5));
  ASSERT_TRUE(engine.rollback());
  for (Context* c : {&context, &reference}) {
    c->take();
    c->feed(engine.text(210, 4));
  }
  expect_equal(reference.take(), context.take());
  EXPECT_EQ(engine.statistics().tokens, (kPrompt + 5 + 4) * layers());
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
}

}  // namespace
}  // namespace zeromerge::test
