// The end of a prompt where layers share a budget, and second readings, in the engine.
#include <algorithm>
#include <numeric>
#include <vector>

#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

class PromptEnd : public EngineTest {
 protected:
  static constexpr const char* kShared =
      "zeromerge:heads=two-stage,replay=100%,merge=drop,refit=64,budget=40,least=8,tail=8";

  void SetUp() override {
    EngineTest::SetUp();
    begin = find<zeromerge_begin_second_reading_t>("zeromerge_begin_second_reading");
    end = find<zeromerge_end_second_reading_t>("zeromerge_end_second_reading");
  }

  template <class Function>
  static Function find(const char* name) {
    return reinterpret_cast<Function>(
        ggml_backend_reg_get_proc_address(ggml_backend_reg_by_name("zeromerge"), name));
  }

  // Entries of each head of each layer.
  std::vector<std::uint64_t> entries() const {
    std::vector<std::uint64_t> all;
    engine.get_heads(
        [](void* into, const zeromerge_head* head) {
          static_cast<std::vector<std::uint64_t>*>(into)->push_back(head->entries);
        },
        &all);
    return all;
  }

  zeromerge_begin_second_reading_t begin = nullptr;
  zeromerge_end_second_reading_t end = nullptr;
  std::vector<llama_token> prompt = Engine::get().text(0, 200);
  std::vector<llama_token> rest = Engine::get().text(200, 10);
};

TEST_F(PromptEnd, ThatTheEngineTellsIsThatOfTheFirstToken) {
  engine.policy(kShared);
  const Rows expected = run({}, prompt, rest);
  Context context{Options{}};
  context.feed(prompt);
  ASSERT_TRUE(engine.finish_prompt());
  const std::vector<std::uint64_t> kept = entries();
  EXPECT_EQ(std::accumulate(kept.begin(), kept.end(), std::uint64_t{0}), 40 * engine.heads());
  EXPECT_GT(*std::max_element(kept.begin(), kept.end()), *std::min_element(kept.begin(), kept.end()));
  context.feed_each(rest);
  EXPECT_EQ(expected, context.take());
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
}

// Servers feed a prompt's last token again, to have its logits.
TEST_F(PromptEnd, ComesBehindATokenThatIsFedAgain) {
  engine.policy(kShared);
  std::vector<llama_token> shorter = prompt;
  shorter.pop_back();
  std::vector<llama_token> longer = rest;
  longer.insert(longer.begin(), prompt.back());
  const Rows expected = run({}, shorter, longer);
  engine.reset_statistics();
  Context context{Options{}};
  context.feed(prompt);
  context.take();
  context.roll_back(1);
  context.feed_each(longer);
  const Rows got = context.take();
  // The first time that token was fed its query took part in the scores.
  expect_close({expected.begin() + 1, expected.end()}, got, 0.03);
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

TEST_F(PromptEnd, NeedsTheSecondReadingThatAPolicyChoosesBy) {
  engine.policy("kvzip:budget=40,tail=8,least=8");
  {
    Context context{Options{}};
    context.feed(prompt);
    const Quiet quiet;
    EXPECT_NE(context.try_feed({Piece{0, {rest[0]}}}), 0);
    EXPECT_NE(std::string(engine.last_error()).find("begin_second_reading"), std::string::npos)
        << engine.last_error();
  }
  Context context{Options{}};
  context.feed(prompt);
  const Rows last = context.take();
  ASSERT_TRUE(begin());
  for (std::size_t first = 0; first < prompt.size(); first += 100) {  // in two parts
    context.feed(engine.text(first, 100));
    context.roll_back(100);
  }
  ASSERT_TRUE(end());
  context.take();
  EXPECT_EQ(engine.statistics().tokens, 200u * static_cast<unsigned>(llama_model_n_layer(engine.model())));
  context.feed_each(rest);
  const std::vector<std::uint64_t> kept = entries();
  EXPECT_EQ(std::accumulate(kept.begin(), kept.end(), std::uint64_t{0}), 40 * engine.heads());
  engine.policy("full");
  expect_close(
      run({}, prompt, rest),
      [&] {
        Rows rows = context.take();
        rows.insert(rows.begin(), last.front());
        return rows;
      }(),
      1.5);
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
}

}  // namespace
}  // namespace zeromerge::test
