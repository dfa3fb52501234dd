// How near is the attention of a prompt to the machine's arithmetic, what do the column statistics cost that
// scores need, and how far is llama.cpp? One layer; every call starts with an empty cache and ends with the
// whole prompt in it.
#include <CLI/CLI.hpp>
#include <iostream>
#include <map>
#include <optional>

#include "support/calibrate.hpp"
#include "support/ggml_peer.hpp"
#include "support/harness.hpp"
#include "support/pool.hpp"
#include "zeromerge/cache/presets.hpp"

namespace bench {
namespace {

// The geometries of the models, with fewer heads where these only repeat: a kv head's work is the same.
const std::vector<Shape> kPromptShapes = {{9, 3, 64}, {4, 1, 128}, {4, 4, 128}, {4, 1, 256}};

struct Statistics {
  const char* name;
  const char* spec;
};
constexpr Statistics kStatistics[] = {
    {"none", "full"}, {"tail", "zeromerge:score=tail"}, {"exact", "zeromerge:score=exact"}};

struct Options {
  std::vector<std::string> shapes;
  std::vector<std::size_t> tokens = {512, 2048, 8192};
  std::vector<std::size_t> chunks = {0};
  std::string type = "f16";
  std::vector<std::size_t> threads = {1};
  bool peers = true;
  Effort effort;
  std::string json;
};

struct PromptData {
  HugeFloats q, k, v;
  PromptData(const Shape& s, std::size_t tokens)
      : q(random_numbers(tokens * s.query_heads * s.head_dim, 1)),
        k(random_numbers(tokens * s.kv_heads * s.head_dim, 2)),
        v(random_numbers(tokens * s.kv_heads * s.head_dim, 3)) {}
};

// The library, by a policy that needs certain statistics.
class OurPrompt {
 public:
  OurPrompt(const Shape& shape, const PromptData& data, const std::string& spec, std::size_t chunk,
            std::size_t threads)
      : shape_(shape),
        data_(data),
        tokens_(data.k.size() / (shape.kv_heads * shape.head_dim)),
        out_(data.q.size()) {
    zeromerge::Geometry g;
    g.layers = 1;
    g.query_heads = shape.query_heads;
    g.kv_heads = shape.kv_heads;
    g.head_dim = shape.head_dim;
    chunk_ = chunk == 0 ? tokens_ : chunk;
    cache_ = zeromerge::make_cache(spec, g, {.executor = executor_of(threads)});
  }

  void step() {
    using zeromerge::rows;
    auto& layer = cache_->layer(0);
    layer.truncate(0);  // the memory stays: what a prompt's first touch of it costs is the system's affair
    for (std::size_t t = 0; t < tokens_; t += chunk_) {
      const std::size_t n = std::min(chunk_, tokens_ - t);
      const std::size_t kv = t * shape_.kv_heads * shape_.head_dim;
      const std::size_t q = t * shape_.query_heads * shape_.head_dim;
      layer.prefill(rows(data_.q.data() + q, n, shape_.query_heads, shape_.head_dim),
                    rows(data_.k.data() + kv, n, shape_.kv_heads, shape_.head_dim),
                    rows(data_.v.data() + kv, n, shape_.kv_heads, shape_.head_dim),
                    zeromerge::out_rows(out_.data() + q, n, shape_.query_heads, shape_.head_dim));
    }
  }

 private:
  Shape shape_;
  const PromptData& data_;
  std::size_t tokens_;
  std::size_t chunk_;
  HugeFloats out_;
  std::unique_ptr<zeromerge::AnyCache> cache_;
};

// All contenders for one shape, prompt and number of threads.
class Group {
 public:
  Group(const Shape& shape, std::size_t tokens, std::size_t chunk, std::size_t threads,
        const Options& options)
      : shape_(shape),
        tokens_(tokens),
        chunk_(chunk),
        threads_(threads),
        options_(options),
        data_(shape, tokens),
        arithmetic_(threads) {}

  void run(Report& report) {
    contenders_.push_back({"arithmetic", [this] { arithmetic_.step(); }});
    for (const Statistics& s : kStatistics) {
      const std::string spec = s.spec +
                               std::string(std::string(s.spec).find(':') == std::string::npos ? ":" : ",") +
                               "storage=" + options_.type;
      ours_.push_back(std::make_unique<OurPrompt>(shape_, data_, spec, chunk_, threads_));
      contenders_.push_back({s.name, [step = ours_.back().get()] { step->step(); }});
    }
    if (options_.peers) {
      add_peer("ggml flash", PeerForm::token_major);
      add_peer("ggml plain", PeerForm::plain);
    }
    const auto times = measure(contenders_, options_.effort);
    std::map<std::string, double> seconds;
    for (std::size_t i = 0; i < times.size(); ++i) seconds[contenders_[i].name] = times[i].seconds;
    for (const Statistics& s : kStatistics) report.add(row(s.name, seconds));
  }

 private:
  void add_peer(const char* name, PeerForm form) {
    const PeerProblem problem{shape_, tokens_, tokens_, data_.q.data(), data_.k.data(), data_.v.data()};
    peers_.push_back(std::make_unique<GgmlPeer>(problem, form, GGML_TYPE_F16, 1, static_cast<int>(threads_)));
    contenders_.push_back({name, [peer = peers_.back().get()] { peer->step(); }});
  }

  Json row(const char* statistics, const std::map<std::string, double>& times) const {
    const double seconds = times.at(statistics);
    const double n = static_cast<double>(tokens_);
    const double flops = shape_.flops(n * (n + 1.0) / 2.0);
    const double computing = flops / arithmetic_.flops() * times.at("arithmetic");
    const auto ratio = [&](std::optional<double> x) { return x ? Json(*x / seconds) : Json(); };
    std::optional<double> flash, best;
    if (options_.peers) {
      flash = times.at("ggml flash");
      best = std::min(*flash, times.at("ggml plain"));
    }
    return {{"query_heads", shape_.query_heads},
            {"kv_heads", shape_.kv_heads},
            {"head_dim", shape_.head_dim},
            {"tokens", tokens_},
            {"chunk", chunk_ == 0 ? tokens_ : chunk_},
            {"type", options_.type},
            {"threads", threads_},
            {"statistics", statistics},
            {"ms", seconds * 1e3},
            {"gflop_per_s", flops / seconds * 1e-9},
            {"peak_gflop_per_s", flops / computing * 1e-9},
            {"share_of_peak", computing / seconds},
            {"ratio_to_none", seconds / times.at("none")},
            {"ratio_to_ggml", ratio(flash)},
            {"ratio_to_ggml_best", ratio(best)}};
  }

  Shape shape_;
  std::size_t tokens_;
  std::size_t chunk_;
  std::size_t threads_;
  const Options& options_;
  PromptData data_;
  Arithmetic arithmetic_;
  std::vector<std::unique_ptr<OurPrompt>> ours_;
  std::vector<std::unique_ptr<GgmlPeer>> peers_;
  std::vector<Contender> contenders_;
};

Report new_report() {
  return {"prefill",
          {{"query_heads", "q heads"},
           {"kv_heads", "kv"},
           {"head_dim", "dim"},
           {"tokens", "tokens"},
           {"chunk", "chunk"},
           {"threads", "threads"},
           {"statistics", "statistics"},
           {"ms", "ms", "%.2f"},
           {"gflop_per_s", "GFLOP/s", "%.1f"},
           {"peak_gflop_per_s", "peak", "%.1f"},
           {"share_of_peak", "of peak", "%.2f"},
           {"ratio_to_none", "time / none", "%.2f"},
           {"ratio_to_ggml", "x ggml", "%.2f"},
           {"ratio_to_ggml_best", "x best", "%.2f"}}};
}

int run(const Options& options) {
  Report report = new_report();
  report.machine() = describe_machine();
  for (const Shape& shape : kPromptShapes) {
    if (!options.shapes.empty() &&
        std::find(options.shapes.begin(), options.shapes.end(), shape.text()) == options.shapes.end())
      continue;
    for (const std::size_t tokens : options.tokens)
      for (const std::size_t chunk : options.chunks)
        for (const std::size_t threads : options.threads) {
          std::cerr << shape.text() << ", " << tokens << " tokens, chunk " << chunk << ", " << threads
                    << " thread(s)\n";
          Group(shape, tokens, chunk, threads, options).run(report);
        }
  }
  report.note(
      "peak: as many f32 multiply-adds on registers, timed among the contenders; only what is below the "
      "diagonal "
      "counts as computed");
  report.note(
      "statistics: none (full); tail: the decayed sums of the last rows, all but 1e-4 of them (zeromerge); "
      "exact: "
      "of all rows");
  report.note(
      "ggml: flash attention over llama.cpp's f16 cache with its causal mask; best: that or two products "
      "with "
      "transposed values");
  report.print(std::cout);
  report.write(options.json);
  return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  CLI::App app("Attention of a prompt beside the machine's limit and llama.cpp's kernels");
  bench::Options options;
  std::vector<std::string> shapes;
  for (const bench::Shape& shape : bench::kPromptShapes) shapes.push_back(shape.text());
  app.add_option("--shape", options.shapes, "query heads/kv heads x head_dim (all)")
      ->check(CLI::IsMember(shapes));
  app.add_option("--tokens", options.tokens, "of the prompt")->check(CLI::Range(1, 1 << 17))->delimiter(',');
  app.add_option("--chunk", options.chunks, "tokens of a call, 0: all")
      ->check(CLI::Range(0, 1 << 17))
      ->delimiter(',');
  app.add_option("--type", options.type, "stored type")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8", "q4"}));
  app.add_option("--threads", options.threads, "threads: 1, 2, 4")
      ->check(CLI::IsMember({1, 2, 4}))
      ->delimiter(',');
  app.add_flag("!--no-peers", options.peers, "measure the library alone");
  app.add_option("--repetitions", options.effort.repetitions, "of each contender")
      ->check(CLI::Range(1, 1000));
  app.add_option("--seconds", options.effort.seconds, "of each repetition, at least")
      ->check(CLI::PositiveNumber);
  app.add_option("--json", options.json, "write the rows to this file");
  try {
    app.parse(argc, argv);
    return bench::run(options);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
