// How near is the attention of a prompt to the machine's arithmetic, what do the column statistics cost that
// scores need, and how far is llama.cpp? One layer; a whole prompt at once, or the last chunk of one.
#include <algorithm>
#include <iostream>
#include <map>
#include <optional>

#include "prefill/contenders.hpp"
#include "support/calibrate.hpp"
#include "support/command_line.hpp"
#include "support/ggml_peer.hpp"
#include "support/machine.hpp"

namespace bench {
namespace {

// The geometries of the models, with fewer heads where these only repeat: a kv head's work is the same.
const std::vector<Shape> kPromptShapes = {{9, 3, 64}, {4, 1, 128}, {2, 2, 128}, {4, 1, 256}};

struct Statistics {
  const char* name;
  const char* spec;
};
constexpr Statistics kStatistics[] = {{"none", "full:storage="},
                                      {"decayed sum", "zeromerge:storage="},
                                      {"decayed sum, all rows", "zeromerge:score=exact,storage="}};

struct Options : CommonOptions {
  std::vector<std::size_t> tokens = {512, 2048, 8192};
  std::vector<std::size_t> chunks = {512, 0};
  std::string type = "f16";
  bool peers = true;
};

// All contenders for one call.
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
      ours_.push_back(
          std::make_unique<OurPrompt>(shape_, data_, tokens_, chunk_, s.spec + options_.type, threads_));
      contenders_.push_back({s.name, [step = ours_.back().get()] { step->step(); }});
    }
    if (options_.peers) {
      add_peer("ggml flash", PeerForm::token_major);
      if (plain_fits()) add_peer("ggml plain", PeerForm::plain);
    }
    const auto times = measure(contenders_, options_.effort);
    for (const auto& peer : peers_) check_same(ours_[0]->output(), peer->output(), options_.type);
    std::map<std::string, double> seconds;
    for (std::size_t i = 0; i < times.size(); ++i) seconds[contenders_[i].name] = times[i].seconds;
    for (const Statistics& s : kStatistics) report.add(row(s.name, seconds));
  }

 private:
  // Two matrices of all logits, which no engine lets grow beyond a chunk either.
  bool plain_fits() const { return tokens_ * chunk_ * shape_.query_heads <= std::size_t{1} << 28; }

  void add_peer(const char* name, PeerForm form) {
    const std::size_t past = tokens_ - chunk_;
    const PeerProblem problem{shape_,         tokens_,
                              chunk_,         data_.q.data() + past * shape_.query_heads * shape_.head_dim,
                              data_.k.data(), data_.v.data()};
    peers_.push_back(
        std::make_unique<GgmlPeer>(problem, form, stored_like(options_.type), 1, static_cast<int>(threads_)));
    contenders_.push_back({name, [peer = peers_.back().get()] { peer->step(); }});
  }

  // What the queries see, and no more: query i of the chunk sees the past and i + 1 entries.
  double flops() const {
    const auto chunk = static_cast<double>(chunk_);
    const auto past = static_cast<double>(tokens_ - chunk_);
    return shape_.flops(chunk * past + chunk * (chunk + 1.0) / 2.0);
  }

  Json row(const char* statistics, const std::map<std::string, double>& times) const {
    const double seconds = times.at(statistics);
    const double computing = flops() / arithmetic_.flops() * times.at("arithmetic");
    std::optional<double> flash, best;
    for (const auto& [name, time] : times) {
      if (!name.starts_with("ggml")) continue;
      if (name == "ggml flash") flash = time;
      best = std::min(best.value_or(time), time);
    }
    const auto ratio = [&](std::optional<double> x) { return x ? Json(*x / seconds) : Json(); };
    return {{"query_heads", shape_.query_heads},
            {"kv_heads", shape_.kv_heads},
            {"head_dim", shape_.head_dim},
            {"tokens", tokens_},
            {"chunk", chunk_},
            {"type", options_.type},
            {"threads", threads_},
            {"statistics", statistics},
            {"ms", seconds * 1e3},
            {"gflop_per_s", flops() / seconds * 1e-9},
            {"peak_gflop_per_s", flops() / computing * 1e-9},
            {"share_of_peak", computing / seconds},
            {"ggml_ms", flash ? Json(*flash * 1e3) : Json()},
            {"ratio_to_ggml", ratio(flash)},
            {"ratio_to_ggml_best", ratio(best)},
            {"ratio_with_statistics", seconds / times.at(kStatistics[0].name)}};
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
  std::vector<TimedStep> contenders_;
};

Report new_report() {
  Report report("prefill", {{"query_heads", "q heads"},
                            {"kv_heads", "kv"},
                            {"head_dim", "dim"},
                            {"tokens", "tokens"},
                            {"chunk", "chunk"},
                            {"type", "type"},
                            {"threads", "threads"},
                            {"statistics", "statistics"},
                            {"ms", "ms", "%.2f"},
                            {"gflop_per_s", "GFLOP/s", "%.1f"},
                            {"peak_gflop_per_s", "peak GFLOP/s", "%.1f"},
                            {"share_of_peak", "of peak", "%.2f"},
                            {"ggml_ms", "ggml ms", "%.2f"},
                            {"ratio_to_ggml", "x ggml", "%.2f"},
                            {"ratio_to_ggml_best", "x best", "%.2f"},
                            {"ratio_with_statistics", "time / none", "%.2f"}});
  report.note("chunk: the queries of the call, the last of the tokens; all of them: a whole prompt at once");
  report.note(
      "peak: f32 multiply-adds on registers, timed among the contenders; what is masked counts as nothing");
  report.note(
      "statistics: what the scores of zeromerge ask for, of the last rows (all but 1e-4 of the sum) or of "
      "all");
  report.note(
      "ggml: flash attention over llama.cpp's cache of the same kind; best: that or two products with "
      "transposed "
      "values, where all logits fit in 1 GiB");
  return report;
}

void run(const Options& options) {
  Report report = new_report();
  report.machine() = describe_machine();
  for (const Shape& shape : chosen(kPromptShapes, options))
    for (const std::size_t tokens : options.tokens)
      for (const std::size_t most : options.chunks) {
        if (most >= tokens) continue;  // the same as the whole prompt
        const std::size_t chunk = most == 0 ? tokens : most;
        for (const std::size_t threads : options.threads) {
          std::cerr << shape.text() << ", " << chunk << " of " << tokens << " tokens, " << threads
                    << " thread(s)\n";
          Group(shape, tokens, chunk, threads, options).run(report);
        }
        report.write(options.json);  // a long run that is stopped leaves what it has
      }
  report.print(std::cout);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  CLI::App app("Attention of a prompt beside the machine's limit and llama.cpp's kernels");
  bench::Options options;
  bench::add_common(app, options, bench::kPromptShapes);
  app.add_option("--tokens", options.tokens, "in the cache after the call")
      ->check(CLI::Range(1, 1 << 17))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--chunk", options.chunks, "tokens of the call; 0: all")
      ->check(CLI::Range(0, 1 << 17))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--type", options.type, "stored type")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8", "q4"}))
      ->capture_default_str();
  app.add_flag("!--no-peers", options.peers, "measure the library alone");
  return bench::run_program(app, argc, argv, [&] { bench::run(options); });
}
