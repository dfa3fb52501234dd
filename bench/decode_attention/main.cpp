// How near is one decode step of exact attention to what the machine can do, and how far from llama.cpp's?
// One layer, one token, the full cache; warm: the same layer again and again; cold: layers in rotation, as a
// model walks through them.
#include <cmath>
#include <iostream>
#include <map>
#include <optional>

#include "decode_attention/contenders.hpp"
#include "support/calibrate.hpp"
#include "support/command_line.hpp"
#include "support/machine.hpp"

namespace bench {
namespace {

using zeromerge::StorageType;

struct Options : CommonOptions {
  std::vector<std::size_t> entries = {512, 2048, 8192, 32768};
  std::vector<std::string> types = {"f32", "f16", "bf16", "q8", "q4"};
  std::vector<std::string> states = {"warm", "cold"};
  bool peers = true;
};

const std::map<std::string, StorageType> kTypes = {{"f32", StorageType::f32},
                                                   {"f16", StorageType::f16},
                                                   {"bf16", StorageType::bf16},
                                                   {"q8", StorageType::q8},
                                                   {"q4", StorageType::q4}};

struct PeerKind {
  const char* name;
  PeerForm form;
  ggml_type type;
};
// llama.cpp's cache as it is, and two that it does not have or does not use with flash attention.
constexpr PeerKind kPeers[] = {{"f16", PeerForm::token_major, GGML_TYPE_F16},
                               {"f16 head-major", PeerForm::head_major, GGML_TYPE_F16},
                               {"f16 plain", PeerForm::plain, GGML_TYPE_F16},
                               {"q8_0", PeerForm::token_major, GGML_TYPE_Q8_0},
                               {"q8_0 head-major", PeerForm::head_major, GGML_TYPE_Q8_0},
                               {"q4_0", PeerForm::token_major, GGML_TYPE_Q4_0},
                               {"q4_0 head-major", PeerForm::head_major, GGML_TYPE_Q4_0}};

// The same kind of cache at the peer: of f32 and bf16 its f16.
std::string peer_type(const std::string& type) {
  return type == "q8" ? "q8_0" : type == "q4" ? "q4_0" : "f16";
}

// All contenders of one line of the table's group: a shape, a number of entries, a state, a number of
// threads.
class Group {
 public:
  Group(const Shape& shape, std::size_t entries, bool warm, std::size_t threads, const Options& options)
      : shape_(shape),
        entries_(entries),
        warm_(warm),
        threads_(threads),
        options_(options),
        data_(shape, entries),
        arithmetic_(threads),
        converted_(shape.query_heads / shape.kv_heads, threads) {}

  void run(Report& report) {
    contenders_.push_back({"arithmetic", [this] { arithmetic_.step(); }});
    contenders_.push_back({"converted", [this] { converted_.step(); }});
    for (const std::string& type : options_.types) add_ours(type);
    if (options_.peers)
      for (const PeerKind& kind : kPeers)
        if (wanted(kind)) add_peer(kind);
    const auto times = measure(contenders_, options_.effort);
    std::map<std::string, Timing> by_name;
    for (std::size_t i = 0; i < times.size(); ++i) by_name[contenders_[i].name] = times[i];
    for (const std::string& type : options_.types) report.add(row(type, by_name));
  }

 private:
  std::size_t layers(double bytes) const { return warm_ ? 1 : cold_layers(static_cast<std::size_t>(bytes)); }
  double layer_bytes(StorageType type) const {
    return entry_bytes(shape_, type) * static_cast<double>(entries_);
  }

  void add_ours(const std::string& name) {
    const StorageType type = kTypes.at(name);
    const double bytes = layer_bytes(type);
    ours_.push_back(std::make_unique<OurStep>(shape_, data_, type, layers(bytes), threads_));
    contenders_.push_back({name, [step = ours_.back().get()] { step->step(); }});
    readers_.push_back(std::make_unique<Reader>(static_cast<std::size_t>(bytes), layers(bytes), threads_));
    contenders_.push_back({"read " + name, [reader = readers_.back().get()] { reader->step(); }});
  }

  bool wanted(const PeerKind& kind) const {
    return std::any_of(options_.types.begin(), options_.types.end(), [&](const std::string& type) {
      return std::string(kind.name).starts_with(peer_type(type));
    });
  }

  void add_peer(const PeerKind& kind) {
    const std::size_t bytes =
        2 * entries_ * shape_.kv_heads * ggml_row_size(kind.type, static_cast<std::int64_t>(shape_.head_dim));
    const PeerProblem problem{shape_, entries_, 1, data_.q.data(), data_.k.data(), data_.v.data()};
    peers_.push_back(std::make_unique<GgmlPeer>(
        problem, kind.form, kind.type, layers(static_cast<double>(bytes)), static_cast<int>(threads_)));
    contenders_.push_back({std::string("ggml ") + kind.name, [peer = peers_.back().get()] { peer->step(); }});
  }

  Json row(const std::string& type, const std::map<std::string, Timing>& times) const {
    const double seconds = times.at(type).seconds;
    const double bytes = layer_bytes(kTypes.at(type));
    const double flops = shape_.flops(static_cast<double>(entries_));
    const double computing = flops / arithmetic_.flops() * times.at("arithmetic").seconds;
    const double limit = std::max(times.at("read " + type).seconds, computing);
    const double converting =
        type == "f16" ? flops / converted_.flops() * times.at("converted").seconds : computing;
    std::optional<double> ggml, best;
    for (const auto& [name, timing] : times) {
      if (!name.starts_with("ggml " + peer_type(type))) continue;
      if (name == "ggml " + peer_type(type)) ggml = timing.seconds;
      best = std::min(best.value_or(timing.seconds), timing.seconds);
    }
    const auto ratio = [&](const std::optional<double>& x) { return x ? Json(*x / seconds) : Json(); };
    return {{"query_heads", shape_.query_heads},
            {"kv_heads", shape_.kv_heads},
            {"head_dim", shape_.head_dim},
            {"entries", entries_},
            {"type", type},
            {"threads", threads_},
            {"warm", warm_},
            {"us", seconds * 1e6},
            {"us_least", times.at(type).least * 1e6},
            {"us_most", times.at(type).most * 1e6},
            {"gb_per_s", bytes / seconds * 1e-9},
            {"gflop_per_s", flops / seconds * 1e-9},
            {"read_gb_per_s", bytes / times.at("read " + type).seconds * 1e-9},
            {"share_of_limit", limit / seconds},
            {"share_of_peak", computing / seconds},
            {"peak_gflop_per_s", flops / computing * 1e-9},
            {"converted_peak_gflop_per_s", flops / converting * 1e-9},
            {"share_with_conversions", std::max(times.at("read " + type).seconds, converting) / seconds},
            {"bound_by", times.at("read " + type).seconds >= limit ? "reading" : "arithmetic"},
            {"ggml_us", ggml ? Json(*ggml * 1e6) : Json()},
            {"ggml_best_us", best ? Json(*best * 1e6) : Json()},
            {"ratio_to_ggml", ratio(ggml)},
            {"ratio_to_ggml_best", ratio(best)}};
  }

  Shape shape_;
  std::size_t entries_;
  bool warm_;
  std::size_t threads_;
  const Options& options_;
  StepData data_;
  Arithmetic arithmetic_;
  ConvertedArithmetic converted_;
  std::vector<std::unique_ptr<OurStep>> ours_;
  std::vector<std::unique_ptr<Reader>> readers_;
  std::vector<std::unique_ptr<GgmlPeer>> peers_;
  std::vector<TimedStep> contenders_;
};

Report new_report() {
  return {"decode_attention",
          {{"query_heads", "q heads"},
           {"kv_heads", "kv"},
           {"head_dim", "dim"},
           {"entries", "entries"},
           {"type", "type"},
           {"threads", "threads"},
           {"warm", "warm"},
           {"us", "us", "%.1f"},
           {"gb_per_s", "GB/s", "%.1f"},
           {"gflop_per_s", "GFLOP/s", "%.1f"},
           {"read_gb_per_s", "read GB/s", "%.1f"},
           {"peak_gflop_per_s", "peak GFLOP/s", "%.1f"},
           {"share_of_limit", "of limit", "%.2f"},
           {"share_with_conversions", "with cvt", "%.2f"},
           {"bound_by", "bound by"},
           {"ggml_us", "ggml us", "%.1f"},
           {"ggml_best_us", "best us", "%.1f"},
           {"ratio_to_ggml", "x ggml", "%.2f"},
           {"ratio_to_ggml_best", "x best", "%.2f"}}};
}

// What the ratios come to over the lines with at least 2,048 entries.
void summarise(Report& report) {
  for (const std::size_t threads : {1, 2}) {
    std::vector<double> ratios;
    for (const Json& row : report.rows())
      if (row["type"] == "f16" && row["threads"] == threads && row["entries"] >= 2048 &&
          !row["ratio_to_ggml"].is_null())
        ratios.push_back(row["ratio_to_ggml"]);
    if (ratios.empty()) continue;
    char text[160];
    std::snprintf(text, sizeof text,
                  "f16, %zu thread(s), 2048 entries and more: %.2f times ggml (geometric mean), least %.2f",
                  threads, geometric_mean(ratios), *std::min_element(ratios.begin(), ratios.end()));
    report.note(text);
  }
  report.note(
      "limit: the longer of reading the same bytes in the same rotation and as many f32 multiply-adds on "
      "registers, "
      "both timed among the contenders");
  report.note(
      "with cvt: the same limit where f16 is converted before it is multiplied, which takes the same units");
  report.note(
      "ggml: flash attention over llama.cpp's cache of the same kind (f16, q8_0, q4_0); best: the fastest of "
      "that, the "
      "same head by head, and for f16 two products with transposed values");
}

void run(const Options& options) {
  Report report = new_report();
  report.machine() = describe_machine();
  for (const Shape& shape : chosen(kShapes, options))
    for (const std::size_t entries : options.entries) {
      for (const std::string& state : options.states)
        for (const std::size_t threads : options.threads) {
          std::cerr << shape.text() << ", " << entries << " entries, " << state << ", " << threads
                    << " thread(s)\n";
          Group(shape, entries, state == "warm", threads, options).run(report);
        }
      report.write(options.json);  // a long run that is stopped leaves what it has
    }
  summarise(report);
  report.print(std::cout);
  report.write(options.json);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  CLI::App app("One decode step of exact attention beside the machine's limits and llama.cpp's kernels");
  bench::Options options;
  options.threads = {1, 2};
  bench::add_common(app, options, bench::kShapes);
  app.add_option("--entries", options.entries, "per head")
      ->check(CLI::Range(1, 1 << 20))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--type", options.types, "stored types")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8", "q4"}))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--state", options.states, "warm, cold")
      ->check(CLI::IsMember({"warm", "cold"}))
      ->delimiter(',')
      ->capture_default_str();
  app.add_flag("!--no-peers", options.peers, "measure the library alone");
  return bench::run_program(app, argc, argv, [&] { bench::run(options); });
}
