// llama.cpp with the plug-in loaded, as tests drive it: one process, one model, contexts that come and go.
//
// Results are compared with contexts whose flash attention is off: llama.cpp then computes attention by other
// operations, which the plug-in does not take. (Its own flash attention is no reference: it sums values in
// f16 and is off by 40 times more.)
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"
#include "plugin_api.h"

namespace zeromerge::test {

inline const char* const kPassage =
    "The lighthouse at the end of the mole had not been lit for thirty years when the surveyor came to "
    "measure it. She "
    "brought a steel tape, two lamps and a boy of eleven who carried the tripod and asked about everything. "
    "Why was the "
    "tower white on one side only? Because the wind from the sea had taken the paint from the other. Why "
    "were there "
    "exactly ninety-six steps? Because the mason had counted the days that the money would last, and built "
    "one step for "
    "each. By noon they had reached the lantern room, where the glass was whole but blind with salt, and "
    "there the boy "
    "found a ledger. Every page held the same four columns: the date, the hour, the height of the water, and "
    "the name of "
    "whoever had kept the watch. The last name stood there for seven hundred nights, always in the same "
    "careful hand, and "
    "then the columns went on without it: date, hour, height, and an empty place. The surveyor read for a "
    "long while. "
    "Then she set up the tripod, levelled it, and wrote down the height of the water herself, with the date "
    "and the hour, "
    "and after a moment she told the boy to write his name in the fourth column. When they walked back along "
    "the mole the "
    "tide was coming in, exactly as high as the ledger said it would be, and behind them, for the length of "
    "one breath of "
    "evening sun, the blind glass of the lantern looked as though somebody had lit it again. In the village "
    "nobody "
    "believed the boy. The baker said that ledgers do not write themselves, the priest said that some of "
    "them do, and the "
    "harbour master, who had to pay for the lamp oil, wanted to know which of the two had seen the invoice. "
    "The surveyor "
    "sent her report by the morning post. It gave the height of the tower, the state of the masonry and the "
    "number of "
    "steps, and under remarks it said that the watch was kept.";

// ---- the process

// Where the f16 copy of the test model lies: made once beside it. With f16 weights llama.cpp's own paths
// agree to a mean KL of 5e-6; with quantised ones it quantises activations too, and they differ by 5e-3.
inline std::string expanded_model() {
  namespace fs = std::filesystem;
  const fs::path model = ZEROMERGE_TEST_MODEL;
  if (!fs::exists(model))
    throw std::runtime_error("no model at " + model.string() +
                             "; build the target zeromerge-model or set ZEROMERGE_TEST_MODEL");
  const fs::path copy = model.parent_path() / (model.stem().string() + ".f16.gguf");
  if (fs::exists(copy) && fs::last_write_time(copy) >= fs::last_write_time(model)) return copy.string();
  const fs::path partial = copy.string() + ".partial." + std::to_string(getpid());
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = LLAMA_FTYPE_MOSTLY_F16;
  params.allow_requantize = true;
  if (llama_model_quantize(model.c_str(), partial.c_str(), &params) != 0)
    throw std::runtime_error("cannot write " + partial.string());
  fs::rename(partial, copy);
  return copy.string();
}

inline void log_errors() {
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
}

// While it lives llama.cpp says nothing: its calls are meant to fail.
struct Quiet {
  Quiet() {
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  }
  ~Quiet() { log_errors(); }
};

class Engine {
 public:
  static Engine& get() {
    static Engine engine;
    return engine;
  }

  llama_model* model() const { return model_; }
  std::size_t vocabulary() const {
    return static_cast<std::size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model_)));
  }
  std::size_t heads() const {  // over all layers
    return static_cast<std::size_t>(llama_model_n_layer(model_) * llama_model_n_head_kv(model_));
  }
  bool has_plugin() const { return set_policy != nullptr; }

  // `count` tokens of the passage from `first` on, which repeats itself when it ends.
  std::vector<llama_token> text(std::size_t first, std::size_t count) const {
    std::vector<llama_token> tokens;
    for (std::size_t i = first; i < first + count; ++i) tokens.push_back(passage_[i % passage_.size()]);
    return tokens;
  }

  zeromerge_statistics statistics() const {
    zeromerge_statistics s{};
    get_statistics(&s);
    return s;
  }
  // Calls that were not answered from caches for this reason.
  std::uint64_t stateless(const std::string& reason) const {
    std::pair<std::string, std::uint64_t> asked = {reason, 0};
    get_reasons(
        [](void* into, const zeromerge_reason* told) {
          auto& [name, calls] = *static_cast<std::pair<std::string, std::uint64_t>*>(into);
          if (name == told->name) calls = told->calls;
        },
        &asked);
    return asked.second;
  }
  void policy(const char* spec) const {
    char error[256] = "";
    if (!set_policy(spec, error, sizeof error)) throw std::runtime_error(error);
  }

  zeromerge_set_policy_t set_policy = nullptr;
  zeromerge_set_reclaim_t set_reclaim = nullptr;
  zeromerge_finish_prompt_t finish_prompt = nullptr;
  zeromerge_checkpoint_t checkpoint = nullptr;
  zeromerge_rollback_t rollback = nullptr;
  zeromerge_trim_t trim = nullptr;
  zeromerge_get_statistics_t get_statistics = nullptr;
  zeromerge_get_reasons_t get_reasons = nullptr;
  zeromerge_get_heads_t get_heads = nullptr;
  zeromerge_reset_statistics_t reset_statistics = nullptr;
  zeromerge_last_error_t last_error = nullptr;

 private:
  // Static, so never torn down in a test's reach; the plug-in stays loaded to the end.
  Engine() {
    log_errors();
    ggml_backend_load_all();
    if (std::getenv("ZEROMERGE_TEST_PLAIN") == nullptr) load_plugin();
    llama_model_params params = llama_model_default_params();
    model_ = llama_model_load_from_file(expanded_model().c_str(), params);
    if (model_ == nullptr) throw std::runtime_error("cannot load the model");
    const std::string text = kPassage;
    passage_.resize(text.size() + 8);
    passage_.resize(static_cast<std::size_t>(
        llama_tokenize(llama_model_get_vocab(model_), text.c_str(), static_cast<std::int32_t>(text.size()),
                       passage_.data(), static_cast<std::int32_t>(passage_.size()), true, false)));
  }

  // GGML_BACKEND_PATH may have loaded it already.
  void load_plugin() {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name("zeromerge");
    if (reg == nullptr) reg = ggml_backend_load(ZEROMERGE_PLUGIN);
    if (reg == nullptr) throw std::runtime_error("cannot load " ZEROMERGE_PLUGIN);
    const auto find = [reg](auto& function, const char* name) {
      function =
          reinterpret_cast<std::decay_t<decltype(function)>>(ggml_backend_reg_get_proc_address(reg, name));
      if (function == nullptr) throw std::runtime_error(std::string("the plug-in has no ") + name);
    };
    find(set_policy, "zeromerge_set_policy");
    find(set_reclaim, "zeromerge_set_reclaim");
    find(finish_prompt, "zeromerge_finish_prompt");
    find(checkpoint, "zeromerge_checkpoint");
    find(rollback, "zeromerge_rollback");
    find(trim, "zeromerge_trim");
    find(get_statistics, "zeromerge_get_statistics");
    find(get_reasons, "zeromerge_get_reasons");
    find(get_heads, "zeromerge_get_heads");
    find(reset_statistics, "zeromerge_reset_statistics");
    find(last_error, "zeromerge_last_error");
  }

  llama_model* model_ = nullptr;
  std::vector<llama_token> passage_;
};

// Every test starts with everything kept, nothing given back and counters at zero.
class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!engine.has_plugin()) return;
    engine.policy("full");
    engine.set_reclaim(false);
    engine.reset_statistics();
  }
  Engine& engine = Engine::get();
};

// ---- contexts

struct Options {
  unsigned cells = 512;  // per stream
  unsigned ubatch = 512;
  unsigned sequences = 1;
  bool unified = false;  // all sequences in one stream
  bool flash = true;     // false: the reference
  int threads = 1;
  ggml_type type = GGML_TYPE_F16;
  float rope_base = 0.0f;  // 0: the model's
};

inline Options plain(Options options = {}) {
  options.flash = false;
  return options;
}

using Row = std::vector<float>;  // the logits of one position
using Rows = std::vector<Row>;

struct Piece {
  llama_seq_id sequence;
  std::vector<llama_token> tokens;
  bool last = true;  // false: more of this prompt follows, so that no output is asked for
};

class Context {
 public:
  explicit Context(const Options& options) {
    llama_context_params p = llama_context_default_params();
    p.n_ctx = options.cells * (options.unified ? 1 : options.sequences);
    p.n_batch = 2048;
    p.n_ubatch = options.ubatch;
    p.n_seq_max = options.sequences;
    p.kv_unified = options.unified;
    p.n_threads = p.n_threads_batch = options.threads;
    p.flash_attn_type = options.flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p.rope_freq_base = options.rope_base;
    p.type_k = options.type;
    p.type_v = options.flash ? options.type : GGML_TYPE_F16;
    context_ = llama_init_from_model(Engine::get().model(), p);
    if (context_ == nullptr) throw std::runtime_error("cannot make a context");
    next_.resize(options.sequences, 0);
  }
  ~Context() { llama_free(context_); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  llama_context* raw() const { return context_; }
  llama_memory_t memory() const { return llama_get_memory(context_); }

  // One batch with tokens of several sequences; the logits of each piece's last token (all: of every token)
  // are appended to rows[sequence]. Returns what llama_decode returns.
  int try_feed(const std::vector<Piece>& pieces, bool all = false) {
    std::size_t count = 0;
    for (const Piece& piece : pieces) count += piece.tokens.size();
    llama_batch batch = llama_batch_init(static_cast<std::int32_t>(count), 0, 1);
    std::vector<std::pair<llama_seq_id, std::int32_t>> wanted;
    std::vector<llama_pos> next = next_;
    for (const Piece& piece : pieces)
      for (std::size_t i = 0; i < piece.tokens.size(); ++i) {
        const std::int32_t at = batch.n_tokens++;
        batch.token[at] = piece.tokens[i];
        batch.pos[at] = next[static_cast<std::size_t>(piece.sequence)]++;
        batch.n_seq_id[at] = 1;
        batch.seq_id[at][0] = piece.sequence;
        batch.logits[at] = all || (piece.last && i + 1 == piece.tokens.size());
        if (batch.logits[at]) wanted.emplace_back(piece.sequence, at);
      }
    const int status = llama_decode(context_, batch);
    llama_batch_free(batch);
    if (status != 0) return status;
    next_ = next;
    for (const auto& [sequence, at] : wanted) {
      const float* logits = llama_get_logits_ith(context_, at);
      rows[static_cast<std::size_t>(sequence)].emplace_back(logits, logits + Engine::get().vocabulary());
    }
    return 0;
  }

  void feed_batch(const std::vector<Piece>& pieces, bool all = false) {
    const int status = try_feed(pieces, all);
    if (status != 0) throw std::runtime_error("llama_decode returned " + std::to_string(status));
  }
  void feed(std::vector<llama_token> tokens, llama_seq_id sequence = 0) {
    feed_batch({Piece{sequence, std::move(tokens)}});
  }
  void feed_each(const std::vector<llama_token>& tokens, llama_seq_id sequence = 0) {
    for (const llama_token token : tokens) feed({token}, sequence);
  }

  // Forgets the last `count` tokens.
  void roll_back(std::size_t count, llama_seq_id sequence = 0) {
    llama_pos& next = next_[static_cast<std::size_t>(sequence)];
    next -= static_cast<llama_pos>(count);
    if (!llama_memory_seq_rm(memory(), sequence, next, -1))
      throw std::runtime_error("llama_memory_seq_rm refused");
  }
  // Forgets tokens [first, first + count) and moves the rest down.
  void cut(std::size_t first, std::size_t count, llama_seq_id sequence = 0) {
    const auto from = static_cast<llama_pos>(first);
    const auto to = static_cast<llama_pos>(first + count);
    if (!llama_memory_seq_rm(memory(), sequence, from, to))
      throw std::runtime_error("llama_memory_seq_rm refused");
    llama_memory_seq_add(memory(), sequence, to, -1, from - to);
    next_[static_cast<std::size_t>(sequence)] -= to - from;
  }
  // After llama_memory_seq_cp.
  void set_next(llama_seq_id sequence, llama_pos position) {
    next_[static_cast<std::size_t>(sequence)] = position;
  }
  void clear(bool data = true) {
    llama_memory_clear(memory(), data);
    std::fill(next_.begin(), next_.end(), 0);
  }

  std::vector<std::uint8_t> save(llama_seq_id sequence = 0) {
    std::vector<std::uint8_t> state(llama_state_seq_get_size(context_, sequence));
    if (llama_state_seq_get_data(context_, state.data(), state.size(), sequence) != state.size())
      throw std::runtime_error("llama_state_seq_get_data failed");
    return state;
  }
  void restore(const std::vector<std::uint8_t>& state, llama_seq_id sequence = 0) {
    if (llama_state_seq_set_data(context_, state.data(), state.size(), sequence) == 0)
      throw std::runtime_error("llama_state_seq_set_data failed");
    next_[static_cast<std::size_t>(sequence)] = llama_memory_seq_pos_max(memory(), sequence) + 1;
  }

  // The rows gathered since the last call.
  Rows take(llama_seq_id sequence = 0) { return std::exchange(rows[static_cast<std::size_t>(sequence)], {}); }

  std::array<Rows, 8> rows;  // by sequence

 private:
  llama_context* context_ = nullptr;
  std::vector<llama_pos> next_;  // position, by sequence
};

// The prompt at once, then the rest token by token: 1 + rest.size() rows.
inline Rows run(const Options& options, const std::vector<llama_token>& prompt,
                const std::vector<llama_token>& rest) {
  Context context(options);
  context.feed(prompt);
  context.feed_each(rest);
  return context.take();
}

// ---- comparing

struct Difference {
  double mean_kl = 0.0;  // of the second's distribution from the first's
  double max_kl = 0.0;
  double largest = 0.0;  // between logits
  bool finite = true;
};

inline Difference difference(const Rows& expected, const Rows& got) {
  Difference d;
  if (expected.size() != got.size() || expected.empty()) throw std::runtime_error("rows are missing");
  const auto log_sum = [](const Row& row) {
    const double top = static_cast<double>(*std::max_element(row.begin(), row.end()));
    double sum = 0.0;
    for (const float x : row) sum += std::exp(static_cast<double>(x) - top);
    return top + std::log(sum);
  };
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double a = log_sum(expected[i]);
    const double b = log_sum(got[i]);
    double kl = 0.0;
    for (std::size_t j = 0; j < expected[i].size(); ++j) {
      const double x = static_cast<double>(expected[i][j]);
      const double y = static_cast<double>(got[i][j]);
      d.finite = d.finite && std::isfinite(y);
      d.largest = std::max(d.largest, std::abs(x - y));
      kl += std::exp(x - a) * ((x - a) - (y - b));
    }
    d.mean_kl += kl / static_cast<double>(expected.size());
    d.max_kl = std::max(d.max_kl, kl);
  }
  return d;
}

inline std::string describe(const Difference& d) {
  return "mean KL " + std::to_string(d.mean_kl * 1e6) + "e-6, max KL " + std::to_string(d.max_kl * 1e6) +
         "e-6, largest difference of logits " + std::to_string(d.largest);
}

// Equal up to the rounding of two different ways to compute attention.
inline void expect_equal(const Rows& expected, const Rows& got, const char* what = "") {
  const Difference d = difference(expected, got);
  if (std::getenv("ZEROMERGE_TEST_VERBOSE") != nullptr)
    std::fprintf(stderr, "%s: %s\n", what, describe(d).c_str());
  EXPECT_TRUE(d.finite) << what;
  EXPECT_LT(d.mean_kl, 3e-5) << what << ": " << describe(d);
  EXPECT_LT(d.max_kl, 1e-4) << what << ": " << describe(d);
  EXPECT_LT(d.largest, 0.25) << what << ": " << describe(d);
}

// No further apart than a mean KL of `bound`.
inline void expect_close(const Rows& expected, const Rows& got, double bound, const char* what = "") {
  const Difference d = difference(expected, got);
  if (std::getenv("ZEROMERGE_TEST_VERBOSE") != nullptr)
    std::fprintf(stderr, "%s: %s\n", what, describe(d).c_str());
  EXPECT_TRUE(d.finite) << what;
  EXPECT_LT(d.mean_kl, bound) << what << ": " << describe(d);
}

}  // namespace zeromerge::test
