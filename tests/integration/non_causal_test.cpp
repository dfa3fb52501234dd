// Tokens that see what stands behind them, as a picture's do: the engine answers them, and the text behind
// them is compressed as before.
#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

using NonCausal = EngineTest;

void feed_picture(Context& context, const std::vector<llama_token>& tokens) {
  llama_set_causal_attn(context.raw(), false);
  context.feed_batch({Piece{0, tokens, false}});
  llama_set_causal_attn(context.raw(), true);
}

TEST_F(NonCausal, TokensWithinAPromptDoNotEndCompression) {
  const auto layers = static_cast<std::uint64_t>(llama_model_n_layer(engine.model()));
  for (const char* policy : {"full", "zeromerge:budget=50"}) {
    SCOPED_TRACE(policy);
    engine.policy(policy);
    engine.reset_statistics();
    Context context{Options{}};
    Context reference(plain());
    for (Context* c : {&context, &reference}) {
      c->feed_batch({Piece{0, engine.text(0, 60), false}});
      feed_picture(*c, engine.text(200, 30));
      c->feed(engine.text(60, 50));
    }
    // llama.cpp's own flash attention has answered the picture.
    expect_close(reference.take(), context.take(), 2e-3);
    context.feed_each(engine.text(110, 3));
    EXPECT_EQ(engine.statistics().stateless_calls, layers);
    EXPECT_EQ(engine.stateless("non_causal"), layers);
    EXPECT_EQ(engine.statistics().rebuilds, 0u);
    const bool all = std::string(policy) == "full";
    EXPECT_EQ(engine.statistics().entries, (all ? 143u : 50u) * engine.heads());
  }
}

}  // namespace
}  // namespace zeromerge::test
