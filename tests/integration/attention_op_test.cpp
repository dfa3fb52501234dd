// The plug-in under a graph made by hand, as llama.cpp would make it: what a model with other heads, cells,
// masks and streams asks for. Every result is compared with a plain loop in double.
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>

#include "ggml-alloc.h"
#include "ggml-cpu.h"
#include "integration/engine.hpp"
#include "support/attention.hpp"

namespace zeromerge::test {
namespace {

struct Shape {
  std::int64_t dim = 64;
  std::int64_t kv_heads = 2;
  std::int64_t group = 3;
  std::int64_t cells = 512;
  std::int64_t streams = 1;
  ggml_type type = GGML_TYPE_F16;
  float max_bias = 0.0f;
  float softcap = 0.0f;
  bool sinks = false;

  std::int64_t query_heads() const { return kv_heads * group; }
  std::int64_t row() const { return dim * kv_heads; }
};

// For token t of a stream, whether it sees the cell; ALiBi's distance or 0.
struct Visible {
  bool seen = false;
  float distance = 0.0f;
};
using Mask = std::function<Visible(std::int64_t stream, std::int64_t token, std::int64_t cell)>;

struct ContextFree {
  void operator()(ggml_context* c) const { ggml_free(c); }
};
using GgmlContext = std::unique_ptr<ggml_context, ContextFree>;

GgmlContext new_context() {
  return GgmlContext(ggml_init({ggml_tensor_overhead() * 64 + ggml_graph_overhead(), nullptr, true}));
}

// One layer's cells and the calls on them.
class Layer {
 public:
  explicit Layer(const Shape& shape, unsigned seed = 1)
      : s(shape), random_(seed), cache_context_(new_context()) {
    // Loads the plug-in; the CPU comes last, as in llama.cpp.
    Engine::get();
    backends_[0] = ggml_backend_init_by_name("zeromerge", nullptr);
    backends_[1] = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    ggml_backend_cpu_set_n_threads(backends_[1], 1);
    scheduler_ = ggml_backend_sched_new(backends_, nullptr, 2, 64, false, true);
    ggml_context* c = cache_context_.get();
    k_ = ggml_new_tensor_3d(c, s.type, s.row(), s.cells, s.streams);
    v_ = ggml_new_tensor_3d(c, s.type, s.row(), s.cells, s.streams);
    ggml_set_name(k_, "cache_k_l3");
    ggml_set_name(v_, "cache_v_l3");
    cells_ = ggml_backend_alloc_ctx_tensors_from_buft(c, ggml_backend_cpu_buffer_type());
    ggml_backend_buffer_clear(cells_, 0);
    keys_.resize(static_cast<std::size_t>(s.row() * s.cells * s.streams));
    values_.resize(keys_.size());
  }
  ~Layer() {
    ggml_backend_sched_free(scheduler_);
    ggml_backend_buffer_free(cells_);
    for (ggml_backend_t backend : backends_) ggml_backend_free(backend);
  }
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  // Writes new tokens to the cells `written[stream]`, attends over the first `view` cells of streams [first,
  // first + count) and returns the largest distance of an output from the loop's, or -1 if the call was
  // refused.
  double step(const std::vector<std::vector<std::int64_t>>& written, std::int64_t view, const Mask& mask,
              std::int64_t first = 0) {
    const auto count = static_cast<std::int64_t>(written.size());
    const auto tokens = static_cast<std::int64_t>(written[0].size());
    const GgmlContext context = new_context();
    ggml_context* c = context.get();
    ggml_tensor* k_new = input(ggml_new_tensor_2d(c, GGML_TYPE_F32, s.row(), tokens * count));
    ggml_tensor* v_new = input(ggml_new_tensor_2d(c, GGML_TYPE_F32, s.row(), tokens * count));
    ggml_tensor* index = input(ggml_new_tensor_1d(c, GGML_TYPE_I64, tokens * count));
    ggml_tensor* q = input(ggml_new_tensor_4d(c, GGML_TYPE_F32, s.dim, s.query_heads(), tokens, count));
    ggml_tensor* m = input(ggml_new_tensor_4d(c, GGML_TYPE_F16, view, tokens, 1, count));
    ggml_tensor* sinks = s.sinks ? input(ggml_new_tensor_1d(c, GGML_TYPE_F32, s.query_heads())) : nullptr;

    ggml_cgraph* graph = ggml_new_graph(c);
    const auto all = [&](ggml_tensor* cache) {
      return ggml_reshape_2d(c, cache, s.row(), s.cells * s.streams);
    };
    ggml_build_forward_expand(graph, ggml_set_rows(c, all(k_), k_new, index));
    ggml_build_forward_expand(graph, ggml_set_rows(c, all(v_), v_new, index));
    const auto heads = [&](ggml_tensor* cache) {
      const std::size_t size = ggml_type_size(s.type);
      const std::size_t row = static_cast<std::size_t>(s.row()) * size;
      const std::size_t stream = row * static_cast<std::size_t>(s.cells);
      ggml_tensor* t =
          ggml_view_4d(c, cache, s.dim, s.kv_heads, view, count, static_cast<std::size_t>(s.dim) * size, row,
                       stream, stream * static_cast<std::size_t>(first));
      return ggml_permute(c, t, 0, 2, 1, 3);
    };
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.dim));
    ggml_tensor* out = ggml_flash_attn_ext(c, ggml_permute(c, q, 0, 2, 1, 3), heads(k_), heads(v_), m, scale,
                                           s.max_bias, s.softcap);
    if (sinks != nullptr) ggml_flash_attn_ext_add_sinks(out, sinks);
    ggml_prec_set_acc(out, GGML_PREC_F32);
    // A node of the CPU's behind it, as a model has one.
    ggml_tensor* result = ggml_scale(c, out, 1.0f);
    ggml_set_output(result);
    ggml_build_forward_expand(graph, result);

    ggml_backend_sched_reset(scheduler_);
    if (!ggml_backend_sched_alloc_graph(scheduler_, graph))
      throw std::runtime_error("no memory for the graph");
    const std::vector<float> queries = fill(q, 2.0f);
    const std::vector<float> keys = fill(k_new, 1.0f);
    const std::vector<float> values = fill(v_new, 1.0f);
    const std::vector<float> sink_logits = s.sinks ? fill(sinks, 1.0f) : std::vector<float>{};
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < count; ++i)
      for (const std::int64_t cell : written[static_cast<std::size_t>(i)])
        rows.push_back((first + i) * s.cells + cell);
    ggml_backend_tensor_set(index, rows.data(), 0, rows.size() * sizeof rows[0]);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      remember(keys, i, keys_, rows[i]);
      remember(values, i, values_, rows[i]);
    }
    std::vector<ggml_fp16_t> bits;
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t t = 0; t < tokens; ++t)
        for (std::int64_t cell = 0; cell < view; ++cell) {
          const Visible x = mask(first + i, t, cell);
          bits.push_back(ggml_fp32_to_fp16(x.seen ? 0.0f - x.distance : -INFINITY));
        }
    ggml_backend_tensor_set(m, bits.data(), 0, bits.size() * sizeof bits[0]);

    if (ggml_backend_sched_graph_compute(scheduler_, graph) != GGML_STATUS_SUCCESS) return -1.0;
    std::vector<float> got(static_cast<std::size_t>(ggml_nelements(result)));
    ggml_backend_tensor_get(result, got.data(), 0, got.size() * sizeof(float));

    double worst = 0.0;
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t t = 0; t < tokens; ++t) {
        std::vector<std::int64_t> seen;
        for (std::int64_t cell = 0; cell < view; ++cell)
          if (mask(first + i, t, cell).seen) seen.push_back(cell);
        for (std::int64_t h = 0; h < s.query_heads(); ++h) {
          const auto at = static_cast<std::size_t>(((i * tokens + t) * s.query_heads() + h) * s.dim);
          const auto expected = expected_row(&queries[at], first + i, t, h, seen, mask, scale,
                                             s.sinks ? &sink_logits[static_cast<std::size_t>(h)] : nullptr);
          for (std::size_t d = 0; d < expected.size(); ++d)
            worst = std::max(worst, std::abs(expected[d] - static_cast<double>(got[at + d])));
        }
      }
    return worst;
  }

  // Tokens one after another from cell `cell` on, in one stream.
  double causal(std::int64_t cell, std::int64_t tokens) {
    std::vector<std::int64_t> written;
    for (std::int64_t t = 0; t < tokens; ++t) written.push_back(cell + t);
    return step({written}, padded(cell + tokens), [cell](std::int64_t, std::int64_t t, std::int64_t j) {
      return Visible{j <= cell + t, 0.0f};
    });
  }

  // As the engine does when it shifts a context: in the cells, by other means than the plug-in.
  void turn_keys() {
    auto* bits = static_cast<std::uint16_t*>(k_->data);
    for (std::size_t i = 0; i < keys_.size(); ++i)
      if (bits[i] != 0) bits[i] ^= 0x8000;
    for (float& x : keys_) x = -x;
  }

  // llama.cpp shows its kernels cells in steps of 256.
  std::int64_t padded(std::int64_t used) const { return std::min(s.cells, (used + 255) / 256 * 256); }

  const Shape s;

 private:
  static ggml_tensor* input(ggml_tensor* t) {
    ggml_set_input(t);
    return t;
  }

  std::vector<float> fill(ggml_tensor* t, float size) {
    std::normal_distribution<float> normal(0.0f, size);
    std::vector<float> x(static_cast<std::size_t>(ggml_nelements(t)));
    for (float& f : x) f = normal(random_);
    ggml_backend_tensor_set(t, x.data(), 0, x.size() * sizeof(float));
    return x;
  }

  // What a cell will hold: the row, rounded to the cells' type.
  void remember(const std::vector<float>& from, std::size_t index, std::vector<float>& to,
                std::int64_t cell) const {
    const auto size = static_cast<std::size_t>(s.row());
    for (std::size_t d = 0; d < size; ++d) {
      float x = from[index * size + d];
      if (s.type == GGML_TYPE_F16) x = ggml_fp16_to_fp32(ggml_fp32_to_fp16(x));
      if (s.type == GGML_TYPE_BF16) x = ggml_bf16_to_fp32(ggml_fp32_to_bf16(x));
      to[static_cast<std::size_t>(cell) * size + d] = x;
    }
  }

  // As in ggml's description of ALiBi.
  double slope(std::int64_t head) const {
    if (s.max_bias == 0.0f) return 1.0;
    const double below = std::exp2(std::floor(std::log2(static_cast<double>(s.query_heads()))));
    const auto h = static_cast<double>(head);
    if (h < below) return std::pow(std::exp2(-static_cast<double>(s.max_bias) / below), h + 1.0);
    return std::pow(std::exp2(-static_cast<double>(s.max_bias) / 2.0 / below), 2.0 * (h - below) + 1.0);
  }

  std::vector<double> expected_row(const float* q, std::int64_t stream, std::int64_t token, std::int64_t head,
                                   const std::vector<std::int64_t>& seen, const Mask& mask, float scale,
                                   const float* sink) const {
    const std::int64_t kv_head = head / s.group;
    // A sink is an entry with a logit of its own and nothing to give.
    const std::vector<float> nothing(static_cast<std::size_t>(s.dim), 0.0f);
    const auto row = [&](const std::vector<float>& rows, std::size_t j) {
      if (j == seen.size()) return nothing.data();
      return &rows[static_cast<std::size_t>((stream * s.cells + seen[j]) * s.row() + kv_head * s.dim)];
    };
    const auto bias = [&](std::size_t j) {
      if (j == seen.size()) return static_cast<double>(*sink);
      return -slope(head) * static_cast<double>(mask(stream, token, seen[j]).distance);
    };
    return attention(
               q, static_cast<std::size_t>(s.dim), seen.size() + (sink != nullptr ? 1 : 0),
               static_cast<double>(scale), static_cast<double>(s.softcap),
               [&](std::size_t j) { return row(keys_, j); }, [&](std::size_t j) { return row(values_, j); },
               bias)
        .out;
  }

  std::mt19937 random_;
  GgmlContext cache_context_;
  ggml_backend_t backends_[2] = {};
  ggml_backend_sched_t scheduler_ = nullptr;
  ggml_backend_buffer_t cells_ = nullptr;
  ggml_tensor* k_ = nullptr;
  ggml_tensor* v_ = nullptr;
  std::vector<float>
      keys_;  // [streams][cells][row]: what was written, whether the engine's cells still hold it or not
  std::vector<float> values_;  // likewise
};

// The cache's arithmetic is f32 over entries of f16.
constexpr double kCache = 1e-3;
// ggml's CPU kernel sums values in f16.
constexpr double kEngine = 2e-2;

class AttentionOp : public EngineTest {
 protected:
  void expect_calls(std::uint64_t cached, std::uint64_t stateless) const {
    EXPECT_EQ(engine.statistics().cached_calls, cached);
    EXPECT_EQ(engine.statistics().stateless_calls, stateless);
  }
};

TEST_F(AttentionOp, EveryHeadDimAndGroup) {
  for (const std::int64_t dim : {40, 64, 80, 96, 128, 256})
    for (const std::int64_t group : {1, 3, 4, 8}) {
      SCOPED_TRACE("dim " + std::to_string(dim) + ", group " + std::to_string(group));
      engine.reset_statistics();
      Shape shape;
      shape.dim = dim;
      shape.group = group;
      Layer layer(shape);
      EXPECT_LT(layer.causal(0, 37), kCache);
      EXPECT_LT(layer.causal(37, 6), kCache);
      EXPECT_LT(layer.causal(43, 1), kCache);
      EXPECT_LT(layer.causal(44, 1), kCache);
      EXPECT_LT(layer.causal(45, 3), kCache);
      expect_calls(5, 0);
    }
}

TEST_F(AttentionOp, EveryTypeOfCells) {
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_F32})
    for (const char* policy : {"full", "full:storage=f32", "full:storage=bf16"}) {
      SCOPED_TRACE(std::string(ggml_type_name(type)) + " " + policy);
      engine.policy(policy);
      engine.reset_statistics();
      Shape shape;
      shape.type = type;
      Layer layer(shape);
      const bool exact = std::strcmp(policy, "full:storage=f32") == 0 ||
                         (type == GGML_TYPE_F16 && std::strcmp(policy, "full") == 0);
      const double bound = std::strcmp(policy, "full:storage=bf16") == 0 && type != GGML_TYPE_BF16 ? 3e-2
                           : exact                                                                 ? 1e-4
                                                                                                   : 3e-3;
      EXPECT_LT(layer.causal(0, 40), bound);
      EXPECT_LT(layer.causal(40, 1), bound);
      expect_calls(2, 0);
    }
}

TEST_F(AttentionOp, LongPastAcrossStepsOfTheView) {
  Shape shape;
  shape.cells = 2048;
  Layer layer(shape);
  std::int64_t at = 0;
  for (const std::int64_t tokens : {200, 100, 1, 1, 512, 1, 300, 1, 1}) {
    EXPECT_LT(layer.causal(at, tokens), kCache) << "at " << at;
    at += tokens;
  }
  expect_calls(9, 0);
}

// Capped logits (Gemma 2) and sinks (gpt-oss) are the cache's, apart and together.
TEST_F(AttentionOp, SoftCapAndSinks) {
  for (const int what : {1, 2, 3}) {
    SCOPED_TRACE(what);
    engine.reset_statistics();
    Shape shape;
    if ((what & 1) != 0) shape.softcap = 5.0f;
    shape.sinks = (what & 2) != 0;
    Layer layer(shape);
    EXPECT_LT(layer.causal(0, 33), kCache);
    EXPECT_LT(layer.causal(33, 7), kCache);
    EXPECT_LT(layer.causal(40, 1), kCache);
    EXPECT_LT(layer.causal(41, 1), kCache);
    expect_calls(4, 0);
  }
}

// Distances in the mask are none of the plug-in's.
TEST_F(AttentionOp, AlibiIsTheEngines) {
  Shape shape;
  shape.max_bias = 8.0f;
  Layer layer(shape);
  for (const auto& [cell, tokens] : {std::pair<std::int64_t, std::int64_t>{0, 33}, {33, 1}, {34, 1}}) {
    std::vector<std::int64_t> written;
    for (std::int64_t t = 0; t < tokens; ++t) written.push_back(cell + t);
    const double worst =
        layer.step({written}, 256, [&, first = cell](std::int64_t, std::int64_t t, std::int64_t j) {
          return Visible{j <= first + t, static_cast<float>(first + t - j)};
        });
    EXPECT_GE(worst, 0.0);
    EXPECT_LT(worst, kEngine);
  }
  expect_calls(0, 0);
}

// A sliding window, as a mask over a cache of full size.
TEST_F(AttentionOp, AWindowIsTheEngines) {
  constexpr std::int64_t kWindow = 20;
  Layer layer(Shape{});
  std::int64_t at = 0;
  const auto windowed = [&](std::int64_t tokens) {
    std::vector<std::int64_t> written;
    for (std::int64_t t = 0; t < tokens; ++t) written.push_back(at + t);
    const double worst = layer.step({written}, 256, [&](std::int64_t, std::int64_t t, std::int64_t j) {
      return Visible{j <= at + t && j > at + t - kWindow, 0.0f};
    });
    at += tokens;
    return worst;
  };
  EXPECT_LT(windowed(12), kCache);  // it does not show yet
  for (const std::int64_t tokens : {30, 1, 1, 5}) {
    const double worst = windowed(tokens);
    EXPECT_GE(worst, 0.0);
    EXPECT_LT(worst, kEngine);
  }
  expect_calls(1, 4);
}

// It begins to move while tokens come one by one.
TEST_F(AttentionOp, AWindowThatStartsToMoveIsTheEngines) {
  constexpr std::int64_t kWindow = 20;
  Layer layer(Shape{});
  for (std::int64_t at = 0; at < 30; ++at) {
    const double worst = layer.step({{at}}, 256, [&](std::int64_t, std::int64_t, std::int64_t j) {
      return Visible{j <= at && j > at - kWindow, 0.0f};
    });
    EXPECT_GE(worst, 0.0);
    EXPECT_LT(worst, kEngine) << at;
  }
  expect_calls(20, 10);
}

// The cells of a window's cache are used again, round and round.
TEST_F(AttentionOp, AWindowsCellsAreUsedAgain) {
  constexpr std::int64_t kWindow = 24;
  Shape shape;
  shape.cells = 32;
  Layer layer(shape);
  for (std::int64_t at = 0; at < 80; ++at) {
    const double worst = layer.step({{at % 32}}, 32, [&](std::int64_t, std::int64_t, std::int64_t j) {
      const std::int64_t age = ((at % 32) - j + 32) % 32;
      return Visible{age < kWindow && age <= at, 0.0f};
    });
    EXPECT_GE(worst, 0.0) << at;
    EXPECT_LT(worst, kEngine) << at;
  }
}

TEST_F(AttentionOp, CellsInAnyOrder) {
  Layer layer(Shape{});
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < 60; ++i) order.push_back((i * 37) % 101);
  std::size_t at = 0;
  for (const std::size_t tokens : {20, 1, 15, 1, 1, 22}) {
    const std::vector<std::int64_t> written(order.begin() + static_cast<std::ptrdiff_t>(at),
                                            order.begin() + static_cast<std::ptrdiff_t>(at + tokens));
    EXPECT_LT(layer.step({written}, 256,
                         [&](std::int64_t, std::int64_t t, std::int64_t j) {
                           const auto end = order.begin() + static_cast<std::ptrdiff_t>(at) + t + 1;
                           return Visible{std::find(order.begin(), end, j) != end, 0.0f};
                         }),
              kCache);
    at += tokens;
  }
  expect_calls(6, 0);
}

// Any edit of the past: some cells are hidden from now on, others have been shown again.
TEST_F(AttentionOp, PastsThatChangeAtRandom) {
  std::mt19937 random(5);
  Layer layer(Shape{});
  std::vector<std::int64_t> past;
  for (int step = 0; step < 60; ++step) {
    if (step % 3 == 2 && past.size() > 4) {
      const std::size_t from = random() % past.size();
      const std::size_t count = 1 + random() % std::min<std::size_t>(4, past.size() - from);
      past.erase(past.begin() + static_cast<std::ptrdiff_t>(from),
                 past.begin() + static_cast<std::ptrdiff_t>(from + count));
    }
    if (step == 30) past.clear();
    std::vector<std::int64_t> written;
    for (std::int64_t cell = 0; written.size() < 1 + random() % 5; ++cell)
      if (std::find(past.begin(), past.end(), cell) == past.end()) written.push_back(cell);
    const std::vector<std::int64_t> before = past;
    past.insert(past.end(), written.begin(), written.end());
    const double worst = layer.step({written}, 256, [&](std::int64_t, std::int64_t t, std::int64_t j) {
      const auto end = past.begin() + static_cast<std::ptrdiff_t>(before.size()) + t + 1;
      return Visible{std::find(past.begin(), end, j) != end, 0.0f};
    });
    EXPECT_GE(worst, 0.0);
    EXPECT_LT(worst, kEngine) << "step " << step;
  }
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

TEST_F(AttentionOp, StreamsOfDifferentLengths) {
  Shape shape;
  shape.streams = 4;
  shape.cells = 300;
  Layer layer(shape);
  std::vector<std::int64_t> length(4, 0);
  const auto step = [&](std::int64_t first, std::int64_t count, std::int64_t tokens) {
    std::vector<std::vector<std::int64_t>> written(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t t = 0; t < tokens; ++t)
        written[static_cast<std::size_t>(i)].push_back(length[static_cast<std::size_t>(first + i)] + t);
    const double worst = layer.step(
        written, 256,
        [&](std::int64_t stream, std::int64_t t, std::int64_t j) {
          return Visible{j <= length[static_cast<std::size_t>(stream)] + t, 0.0f};
        },
        first);
    for (std::int64_t i = 0; i < count; ++i) length[static_cast<std::size_t>(first + i)] += tokens;
    return worst;
  };
  EXPECT_LT(step(0, 4, 10), kCache);
  EXPECT_LT(step(1, 2, 25), kCache);
  EXPECT_LT(step(3, 1, 70), kCache);
  EXPECT_LT(step(0, 4, 1), kCache);
  EXPECT_LT(step(2, 2, 1), kCache);
  EXPECT_LT(step(0, 3, 4), kCache);
  expect_calls(6, 0);
}

// One stream of a call loses its oldest token, which only the engine's kernel answers; the other's cells have
// been given back.
TEST_F(AttentionOp, AStreamTheCacheAnswersBesideOneItDoesNot) {
  for (const bool reclaim : {false, true}) {
    SCOPED_TRACE(reclaim);
    engine.set_reclaim(reclaim);
    Shape shape;
    shape.streams = 2;
    Layer layer(shape);
    for (const std::int64_t stream : {0, 1}) {
      for (const std::int64_t at : {0, 50}) {
        std::vector<std::int64_t> written;
        for (std::int64_t t = 0; t < 50; ++t) written.push_back(at + t);
        EXPECT_LT(layer.step(
                      {written}, 256,
                      [at](std::int64_t, std::int64_t t, std::int64_t j) {
                        return Visible{j <= at + t, 0.0f};
                      },
                      stream),
                  kCache);
      }
      engine.set_reclaim(false);  // the second keeps its cells
    }
    const double worst =
        layer.step({{100}, {100}}, 256, [](std::int64_t stream, std::int64_t, std::int64_t j) {
          return Visible{j <= 100 && (stream == 0 || j > 0), 0.0f};
        });
    EXPECT_GE(worst, 0.0);
    EXPECT_LT(worst, kEngine);
  }
}

// Reclaiming must hide nothing that is still to be read.
TEST_F(AttentionOp, GivenBackCellsAreNotMissed) {
  engine.set_reclaim(true);
  for (const std::int64_t dim : {40, 64, 256}) {
    Shape shape;
    shape.dim = dim;
    shape.kv_heads = 3;
    Layer layer(shape);
    EXPECT_LT(layer.causal(0, 90), kCache);
    EXPECT_LT(layer.causal(90, 1), kCache);
    EXPECT_EQ(engine.statistics().refusals, 0u);
  }
  expect_calls(6, 0);
  engine.set_reclaim(false);
}

TEST_F(AttentionOp, KeysThatChangeAreReadAgain) {
  Layer layer(Shape{});
  EXPECT_LT(layer.causal(0, 40), kCache);
  layer.turn_keys();
  EXPECT_LT(layer.causal(40, 1), kCache);
  layer.turn_keys();
  EXPECT_LT(layer.causal(41, 3), kCache);
  EXPECT_LT(layer.causal(44, 1), kCache);
  expect_calls(4, 0);
  EXPECT_EQ(engine.statistics().rebuilds, 2u);
}

// Two rows fill a page here, so after an even number of tokens every page could go.
TEST_F(AttentionOp, KeysThatChangeAreNoticedThoughPagesWereGivenBack) {
  engine.set_reclaim(true);
  for (const std::int64_t tokens : {41, 42, 43}) {
    Shape shape;
    shape.dim = 256;
    shape.kv_heads = 4;
    Layer layer(shape);
    EXPECT_LT(layer.causal(0, 40), kCache);
    EXPECT_LT(layer.causal(40, tokens - 40), kCache);
    layer.turn_keys();
    const Quiet quiet;
    EXPECT_EQ(layer.causal(tokens, 1), -1.0) << tokens;
  }
  EXPECT_EQ(engine.statistics().refusals, 3u);
  engine.set_reclaim(false);
}

TEST_F(AttentionOp, OtherTensorsAreTheEngines) {
  ggml_backend_t backend = ggml_backend_init_by_name("zeromerge", nullptr);
  const GgmlContext context = new_context();
  ggml_context* c = context.get();
  ggml_tensor* q = ggml_new_tensor_4d(c, GGML_TYPE_F32, 64, 4, 6, 1);
  ggml_tensor* m = ggml_new_tensor_4d(c, GGML_TYPE_F16, 256, 4, 1, 1);
  const auto cache = [&](const char* name, ggml_type type, std::int64_t dim = 64) {
    ggml_tensor* t = ggml_new_tensor_3d(c, type, dim, 256, 2);
    ggml_set_name(t, name);
    return t;
  };
  ggml_tensor* k = cache("cache_k_l0", GGML_TYPE_F16);
  ggml_tensor* v = cache("cache_v_l0", GGML_TYPE_F16);
  const auto takes = [&](ggml_tensor* keys, ggml_tensor* values, ggml_tensor* mask, float scale = 0.1f) {
    return ggml_backend_supports_op(backend,
                                    ggml_flash_attn_ext(c, q, keys, values, mask, scale, 0.0f, 0.0f));
  };
  EXPECT_TRUE(takes(k, v, m));
  EXPECT_FALSE(takes(k, v, nullptr));
  EXPECT_FALSE(takes(v, k, m));
  EXPECT_FALSE(takes(cache("cache_k_l0", GGML_TYPE_Q8_0), v, m));
  EXPECT_FALSE(takes(k, cache("cache_v_l0", GGML_TYPE_Q4_0), m));
  EXPECT_FALSE(takes(k, cache("cache_v_l0", GGML_TYPE_F16, 32), m));
  EXPECT_FALSE(takes(cache("cache_k_l", GGML_TYPE_F16), v, m));
  EXPECT_FALSE(takes(cache("cache_k_l0 (view) (copy)", GGML_TYPE_F16), v, m));
  EXPECT_FALSE(takes(cache("some tensor", GGML_TYPE_F16), v, m));
  EXPECT_FALSE(ggml_backend_supports_op(backend, ggml_mul_mat(c, k, q)));
  ggml_backend_free(backend);
}

}  // namespace
}  // namespace zeromerge::test
