// Rotations as llama.cpp computes them: taken back they give the projection, in every variant; and a model's
// own reach the policies that turn queries.
#include "zeromerge/core/rope.hpp"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "integration/engine.hpp"
#include "plugin/ropes.hpp"
#include "support/random.hpp"

namespace zeromerge::test {
namespace {

constexpr RopePairs kPairs[] = {RopePairs::halves, RopePairs::neighbours};

struct Case {
  const char* name;
  RopeParams params;
};

// Every way to rotate 64 channels that ggml_rope_ext and the library both know.
std::vector<Case> cases(RopePairs pairs) {
  const std::vector<float> llama3 = {1.0f, 1.0f, 1.5f, 2.0f, 4.0f, 8.0f, 8.0f, 8.0f};
  return {{"plain", {.dims = 64, .pairs = pairs}},
          {"another base", {.dims = 64, .pairs = pairs, .base = 500000.0}},
          {"some of the channels", {.dims = 16, .pairs = pairs}},
          {"linear", {.dims = 64, .pairs = pairs, .scale = 0.25}},
          {"factors", {.dims = 16, .pairs = pairs, .factors = llama3}},
          {"yarn",
           {.dims = 64,
            .pairs = pairs,
            .base = 1e6,
            .scale = 0.25,
            .extrapolation = 1.0,
            .attention = 0.9,
            .original_context = 4096}}};
}

ggml_tensor* rope_of_ggml(ggml_context* c, ggml_tensor* x, ggml_tensor* at, ggml_tensor* factors,
                          const RopeParams& p) {
  const int mode = p.pairs == RopePairs::halves ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL;
  return ggml_rope_ext(
      c, x, at, factors, static_cast<int>(p.dims), mode, static_cast<int>(p.original_context),
      static_cast<float>(p.base), static_cast<float>(p.scale), static_cast<float>(p.extrapolation),
      static_cast<float>(p.attention), static_cast<float>(p.beta_fast), static_cast<float>(p.beta_slow));
}

// What ggml's operator makes of rows [positions][head_dim].
std::vector<float> rotated_by_ggml(const RopeParams& p, std::int64_t head_dim, std::vector<float> rows,
                                   const std::vector<std::int32_t>& positions) {
  const auto count = static_cast<std::int64_t>(positions.size());
  ggml_context* c = ggml_init({std::size_t{1} << 24, nullptr, false});
  ggml_tensor* x = ggml_new_tensor_3d(c, GGML_TYPE_F32, head_dim, 1, count);
  ggml_tensor* at = ggml_new_tensor_1d(c, GGML_TYPE_I32, count);
  std::copy(rows.begin(), rows.end(), static_cast<float*>(x->data));
  std::copy(positions.begin(), positions.end(), static_cast<std::int32_t*>(at->data));
  ggml_tensor* factors = nullptr;
  if (!p.factors.empty()) {
    factors = ggml_new_tensor_1d(c, GGML_TYPE_F32, static_cast<std::int64_t>(p.factors.size()));
    std::copy(p.factors.begin(), p.factors.end(), static_cast<float*>(factors->data));
  }
  ggml_tensor* y = rope_of_ggml(c, x, at, factors, p);
  ggml_cgraph* graph = ggml_new_graph(c);
  ggml_build_forward_expand(graph, y);
  ggml_graph_compute_with_ctx(c, graph, 1);
  const auto* out = static_cast<const float*>(y->data);
  rows.assign(out, out + rows.size());
  ggml_free(c);
  return rows;
}

TEST(RopeOfLlamaCpp, TakenBackGivesTheProjection) {
  for (const RopePairs pairs : kPairs)
    for (const Case& c : cases(pairs)) {
      SCOPED_TRACE(std::string(c.name) + (pairs == RopePairs::halves ? ", halves" : ", neighbours"));
      Random random(1);
      const std::vector<std::int32_t> positions = {0, 1, 2, 77, 1024, 4000};
      const std::vector<float> plain = normals(random, positions.size() * 64);
      std::vector<float> rows = rotated_by_ggml(c.params, 64, plain, positions);
      const Rope rope(c.params, 64);
      for (std::size_t i = 0; i < positions.size(); ++i) {
        rope.unrotate(rows.data() + i * 64, positions[i]);
        // ggml's angles are products in f32: at position 4000 they are off by up to 3e-4.
        for (std::size_t d = 0; d < 64; ++d)
          ASSERT_NEAR(rows[i * 64 + d], plain[i * 64 + d], 1e-6 + 4e-7 * positions[i])
              << "position " << positions[i];
      }
    }
}

// The write of a layer's keys to its cells, as the plug-in meets it: what it writes has been rotated.
class RopesSeen : public testing::Test {
 protected:
  ~RopesSeen() override {
    ggml_backend_buffer_free(buffer_);
    ggml_free(context_);
  }
  // The write of keys that are rotated with these parameters, whose factors are in memory.
  ggml_tensor* write(const RopeParams& p, int mode = -1, bool normed = false) {
    ggml_backend_buffer_free(buffer_);
    ggml_free(context_);
    context_ = ggml_init({std::size_t{1} << 20, nullptr, true});
    ggml_tensor* x = ggml_new_tensor_3d(context_, GGML_TYPE_F32, 64, 1, 1);
    ggml_tensor* at = ggml_new_tensor_1d(context_, GGML_TYPE_I32, 1);
    ggml_tensor* factors = nullptr;
    if (!p.factors.empty())
      factors = ggml_new_tensor_1d(context_, GGML_TYPE_F32, static_cast<std::int64_t>(p.factors.size()));
    ggml_tensor* y = rope_of_ggml(context_, x, at, factors, p);
    if (mode >= 0) y->op_params[2] = mode;
    if (normed) y = ggml_rms_norm(context_, y, 1e-5f);
    ggml_tensor* cells = ggml_new_tensor_3d(context_, GGML_TYPE_F16, 64, 32, 1);
    ggml_tensor* to = ggml_new_tensor_1d(context_, GGML_TYPE_I64, 1);
    ggml_tensor* op = ggml_set_rows(context_, cells, ggml_view_2d(context_, y, 64, 1, y->nb[2], 0), to);
    buffer_ = ggml_backend_alloc_ctx_tensors_from_buft(context_, ggml_backend_cpu_buffer_type());
    if (factors != nullptr)
      ggml_backend_tensor_set(factors, p.factors.data(), 0, p.factors.size() * sizeof(float));
    return op;
  }

 private:
  ggml_context* context_ = nullptr;
  ggml_backend_buffer_t buffer_ = nullptr;
};

TEST_F(RopesSeen, GiveTheRotationOfWhatIsWritten) {
  Random random(2);
  for (const RopePairs pairs : kPairs)
    for (const Case& c : cases(pairs)) {
      SCOPED_TRACE(std::string(c.name) + (pairs == RopePairs::halves ? ", halves" : ", neighbours"));
      const auto rope = plugin::rope_of_write(write(c.params), nullptr);
      ASSERT_NE(rope, nullptr);
      const std::vector<float> plain = normals(random, 64);
      std::vector<float> back = rotated_by_ggml(c.params, 64, plain, {77});
      rope->unrotate(back.data(), 77.0);
      for (std::size_t d = 0; d < 64; ++d) ASSERT_NEAR(back[d], plain[d], 4e-5) << "channel " << d;
    }
}

TEST_F(RopesSeen, AreKeptWhileTheyAreTheSameAndGoneWhenTheyAreNotKnown) {
  const auto first = plugin::rope_of_write(write({.dims = 64}), nullptr);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(plugin::rope_of_write(write({.dims = 64}), first), first) << "the same again is made anew";
  const auto second = plugin::rope_of_write(write({.dims = 64, .base = 5e5}), first);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->params().base, 5e5);
  EXPECT_EQ(plugin::rope_of_write(write({.dims = 64}, GGML_ROPE_TYPE_MROPE), second), nullptr)
      << "several positions a token";
  EXPECT_EQ(plugin::rope_of_write(write({.dims = 64}, -1, true), second), nullptr)
      << "what is done to keys behind the rotation is not known";
}

class RopeOfAModel : public EngineTest {};

TEST_F(RopeOfAModel, ReachesThePoliciesThatTurnQueries) {
  const auto prompt = engine.text(0, 300);
  const auto rest = engine.text(300, 12);
  const auto under = [&](const char* policy, std::size_t entries) {
    engine.policy(policy);
    engine.reset_statistics();
    Context context{Options{}};
    context.feed(prompt);
    context.feed_each(rest);
    EXPECT_EQ(engine.statistics().refusals, 0u);
    EXPECT_EQ(engine.statistics().entries, entries * engine.heads());  // of all tokens seen
    return context.take();
  };
  const Rows expected = under("full", 312);
  const Rows dropped = under("zeromerge:budget=20%,merge=drop", 62);
  const Rows fitted = under("zeromerge:budget=20%,merge=drop,refit=128", 62);
  const Rows replayed = under("zeromerge:budget=20%,merge=drop,replay=50%", 62);
  EXPECT_GT(difference(dropped, replayed).mean_kl, 1e-6) << "replay chose what the score would have chosen";
  // The values of what stays take over what left.
  EXPECT_LT(difference(expected, fitted).mean_kl, difference(expected, dropped).mean_kl);
}

}  // namespace
}  // namespace zeromerge::test
