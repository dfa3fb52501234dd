// Everything kept: the plug-in's results are llama.cpp's, however the tokens arrive.
#include <sys/wait.h>

#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

using Full = EngineTest;

TEST_F(Full, EqualsPlainForEverySizeOfUbatch) {
  const auto prompt = engine.text(0, 150);
  const auto rest = engine.text(150, 24);
  const Rows expected = run(plain(), prompt, rest);
  for (const unsigned ubatch : {512u, 64u, 17u, 1u}) {
    SCOPED_TRACE("ubatch " + std::to_string(ubatch));
    engine.reset_statistics();
    Options options;
    options.ubatch = ubatch;
    const Rows got = run(options, prompt, rest);
    expect_equal(expected, got);
    expect_close(expected, got, 1e-5);
    const zeromerge_statistics s = engine.statistics();
    const std::size_t calls = (150 + ubatch - 1) / ubatch + 24;
    EXPECT_EQ(s.cached_calls, calls * static_cast<std::size_t>(llama_model_n_layer(engine.model())));
    EXPECT_EQ(s.stateless_calls, 0u);
    EXPECT_EQ(s.rebuilds, 0u);
    EXPECT_EQ(s.refusals, 0u);
    EXPECT_GT(s.attention_seconds, 0.0);
  }
}

TEST_F(Full, EqualsPlainAtEveryPositionOfAPrompt) {
  Context reference(plain());
  Context context{Options{}};
  const std::vector<Piece> prompt = {{0, engine.text(40, 100)}};
  reference.feed_batch(prompt, true);
  context.feed_batch(prompt, true);
  expect_equal(reference.take(), context.take());
}

TEST_F(Full, CountsWhatItHolds) {
  Context context{Options{}};
  context.feed(engine.text(0, 100));
  context.feed_each(engine.text(100, 3));
  const zeromerge_statistics s = engine.statistics();
  const std::size_t heads = engine.heads();
  const auto layers = static_cast<std::size_t>(llama_model_n_layer(engine.model()));
  EXPECT_EQ(s.entries, 103 * heads);
  EXPECT_EQ(s.tokens, 103 * layers);
  EXPECT_EQ(s.caches, layers);
  const std::size_t least = 103 * heads * 64 * 2 * 2;  // f16 keys and values of 64 dims
  EXPECT_GE(s.kv_bytes, least);
  EXPECT_GE(s.kv_bytes_peak, s.kv_bytes);
}

TEST_F(Full, ForgetsWhatItHeldWithTheContext) {
  {
    Context context{Options{}};
    context.feed(engine.text(0, 20));
    EXPECT_GT(engine.statistics().kv_bytes, 0u);
  }
  const zeromerge_statistics s = engine.statistics();
  EXPECT_EQ(s.kv_bytes, 0u);
  EXPECT_EQ(s.entries, 0u);
  EXPECT_EQ(s.caches, 0u);
  EXPECT_EQ(s.engine_bytes, 0u);
}

TEST_F(Full, TwoContextsDoNotDisturbEachOther) {
  const auto one = engine.text(0, 60);
  const auto other = engine.text(100, 60);
  const Rows expected_one = run(Options{}, one, engine.text(60, 4));
  const Rows expected_other = run(Options{}, other, engine.text(160, 4));
  Context a{Options{}};
  Context b{Options{}};
  a.feed(one);
  b.feed(other);
  for (std::size_t i = 0; i < 4; ++i) {
    a.feed(engine.text(60 + i, 1));
    b.feed(engine.text(160 + i, 1));
  }
  EXPECT_EQ(expected_one, a.take());
  EXPECT_EQ(expected_other, b.take());
}

TEST_F(Full, LeavesAttentionWithoutACausalMaskToTheEngine) {
  Context reference(plain());
  Context context{Options{}};
  llama_set_causal_attn(reference.raw(), false);
  llama_set_causal_attn(context.raw(), false);
  reference.feed(engine.text(0, 80));
  context.feed(engine.text(0, 80));
  // llama.cpp's own flash attention answers.
  expect_close(reference.take(), context.take(), 2e-3);
  const zeromerge_statistics s = engine.statistics();
  EXPECT_EQ(s.cached_calls, 0u);
  EXPECT_GT(s.stateless_calls, 0u);
  // The next causal prompt is the plug-in's again.
  for (Context* c : {&reference, &context}) {
    llama_set_causal_attn(c->raw(), true);
    c->clear();
    c->feed(engine.text(0, 80));
    c->feed_each(engine.text(80, 2));
  }
  expect_equal(reference.take(), context.take());
  EXPECT_GT(engine.statistics().cached_calls, 0u);
}

TEST_F(Full, LeavesQuantisedCellsToTheEngine) {
  Options options;
  options.type = GGML_TYPE_Q8_0;
  const auto prompt = engine.text(0, 80);
  const auto rest = engine.text(80, 4);
  expect_close(run(plain(), prompt, rest), run(options, prompt, rest), 0.01);
  const zeromerge_statistics s = engine.statistics();
  EXPECT_EQ(s.cached_calls, 0u);
  EXPECT_EQ(s.stateless_calls, 0u);
  EXPECT_EQ(s.kv_bytes_peak, 0u);
}

TEST_F(Full, ReadsCellsOfBf16) {
  Options options;
  options.type = GGML_TYPE_BF16;
  engine.policy("full:storage=bf16");
  const auto prompt = engine.text(0, 80);
  const auto rest = engine.text(80, 8);
  expect_close(run(plain(), prompt, rest), run(options, prompt, rest), 1e-3);
  EXPECT_GT(engine.statistics().cached_calls, 0u);
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

// llama.cpp converts them to f16 before every attention call; the copies are no cells.
TEST_F(Full, LeavesCellsOfF32ToTheEngine) {
  Options options;
  options.type = GGML_TYPE_F32;
  const auto prompt = engine.text(0, 80);
  const auto rest = engine.text(80, 4);
  expect_equal(run(plain(), prompt, rest), run(options, prompt, rest));
  EXPECT_EQ(engine.statistics().cached_calls, 0u);
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

// ---- against processes of their own

// Runs this program's test `filter` with `environment` set ("NAME=value ...") and returns its exit status.
int run_self(const std::string& environment, const std::string& filter, const std::string& log) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command =
      "env " + environment + " '" + self + "' --gtest_filter='" + filter + "' > '" + log + "' 2>&1";
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Scratch {
 public:
  Scratch()
      : path_(std::filesystem::temp_directory_path() /
              ("zeromerge-integration-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string bytes_of(const Rows& rows) {
  std::string bytes;
  for (const Row& row : rows)
    bytes.append(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
  return bytes;
}

// What the tests below start in processes of their own; ZEROMERGE_TEST_OUT names the file to write.
TEST(Process, WritesLogits) {
  const auto set = [](const char* name) { return std::getenv(name) != nullptr; };
  Engine& engine = Engine::get();
  Options options;
  options.flash = set("ZEROMERGE_TEST_FLASH");
  options.threads = set("ZEROMERGE_TEST_TWO_THREADS") ? 2 : 1;
  const Rows rows = run(options, engine.text(0, 50), engine.text(50, 3));
  EXPECT_TRUE(difference(rows, rows).finite);
  if (set("ZEROMERGE_TEST_OUT"))
    std::ofstream(std::getenv("ZEROMERGE_TEST_OUT"), std::ios::binary) << bytes_of(rows);
}

TEST_F(Full, LeavesOtherAttentionUntouchedToTheLastBit) {
  const Scratch scratch;
  ASSERT_EQ(run_self("ZEROMERGE_TEST_PLAIN=1 ZEROMERGE_TEST_OUT='" + scratch / "plain" + "'",
                     "Process.WritesLogits", scratch / "log"),
            0)
      << read(scratch / "log");
  const std::string expected = read(scratch / "plain");
  ASSERT_EQ(expected.size(), 4 * engine.vocabulary() * sizeof(float));
  EXPECT_TRUE(expected == bytes_of(run(plain(), engine.text(0, 50), engine.text(50, 3))));
}

TEST_F(Full, IsLoadedAndConfiguredByTheEnvironmentAlone) {
  const Scratch scratch;
  const std::string common =
      "GGML_BACKEND_PATH='" ZEROMERGE_PLUGIN "' ZEROMERGE_TEST_PLAIN=1 ZEROMERGE_TEST_FLASH=1";
  ASSERT_EQ(run_self(common + " ZEROMERGE_POLICY=full ZEROMERGE_TEST_OUT='" + scratch / "full" + "'",
                     "Process.WritesLogits", scratch / "log"),
            0)
      << read(scratch / "log");
  EXPECT_TRUE(read(scratch / "full") == bytes_of(run(Options{}, engine.text(0, 50), engine.text(50, 3))));
  // A wrong spec is named and keeps everything.
  ASSERT_EQ(run_self(common + " ZEROMERGE_POLICY=zeromerge:budget=lots ZEROMERGE_TEST_OUT='" +
                         scratch / "wrong" + "'",
                     "Process.WritesLogits", scratch / "log"),
            0)
      << read(scratch / "log");
  EXPECT_NE(read(scratch / "log").find("ZEROMERGE_POLICY is wrong"), std::string::npos)
      << read(scratch / "log");
  EXPECT_TRUE(read(scratch / "wrong") == read(scratch / "full"));
}

// In a process of its own, where threads that wait do not spin: on a machine with other work that takes
// minutes.
TEST_F(Full, TwoThreadsGiveTheSameBitsAsOne) {
  const Scratch scratch;
  ASSERT_EQ(
      run_self(
          "OMP_WAIT_POLICY=passive GGML_BACKEND_PATH='" ZEROMERGE_PLUGIN
          "' ZEROMERGE_POLICY=full ZEROMERGE_TEST_FLASH=1 ZEROMERGE_TEST_TWO_THREADS=1 ZEROMERGE_TEST_OUT='" +
              scratch / "two" + "'",
          "Process.WritesLogits", scratch / "log"),
      0)
      << read(scratch / "log");
  EXPECT_TRUE(read(scratch / "two") == bytes_of(run(Options{}, engine.text(0, 50), engine.text(50, 3))));
}

TEST_F(Full, KeepsThePolicyIfTheNextOneIsWrong) {
  engine.policy("zeromerge:budget=40");
  char error[200] = "";
  EXPECT_FALSE(engine.set_policy("zeromerge:budget=lots", error, sizeof error));
  EXPECT_NE(std::string(error).find("budget"), std::string::npos) << error;
  EXPECT_FALSE(engine.set_policy("nonsense", error, sizeof error));
  EXPECT_NE(std::string(error).find("nonsense"), std::string::npos) << error;
  EXPECT_FALSE(engine.set_policy(nullptr, nullptr, 0));
  char cut[8] = "1234567";
  EXPECT_FALSE(engine.set_policy("nonsense", cut, sizeof cut));
  EXPECT_LT(std::string(cut).size(), sizeof cut);
  Context context{Options{}};
  context.feed(engine.text(0, 80));
  context.feed(engine.text(80, 1));
  EXPECT_EQ(engine.statistics().entries, 40 * engine.heads());
}

}  // namespace
}  // namespace zeromerge::test
