#include "generate/run.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <numeric>
#include <stdexcept>

#include "generate/compare.hpp"
#include "generate/kept.hpp"
#include "generate/progress.hpp"
#include "generate/prompt.hpp"
#include "generate/rows.hpp"

namespace generate {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// "VmRSS" or "VmHWM" of this process; the mapped model file counts with the pages of it that are in use.
std::uint64_t memory_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return std::stoull(line.substr(field.size() + 1)) * 1024;
  }
  throw std::runtime_error("/proc/self/status has no field " + field);
}

void prefill(Session& session, const Model& model, const Job& job, const std::optional<Plugin>& plugin) {
  Progress progress(job.label + ", prompt", job.prompt.size());
  read_prompt(session, model, job.prompt, job, plugin, [&](std::size_t done) { progress.update(done); });
}

void step(Session& session, llama_token token) { session.feed(std::span(&token, 1), /*want_logits=*/true); }

// Collects the text up to the first end-of-generation token, and streams it if asked to. Generation goes on
// after it, so that every run does the same work.
class Text {
 public:
  Text(const Model& model, bool stream) : model_(model), stream_(stream) {}
  ~Text() {
    if (stream_) std::cout << std::endl;  // whatever follows, an error too, starts on its own line
  }
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;

  void add(llama_token token) {
    ended_ = ended_ || model_.ends_generation(token);
    if (ended_) return;
    const std::string piece = model_.piece(token);
    text_ += piece;
    if (stream_) std::cout << piece << std::flush;
  }
  const std::string& str() const { return text_; }

 private:
  const Model& model_;
  bool stream_;
  bool ended_ = false;
  std::string text_;
};

// Greedy. Each predicted token is fed back, the last one too: `predict` steps are timed, and the caches end
// up holding prompt + predict tokens. Returns the seconds of each step.
std::vector<double> decode(Session& session, const Job& job, Text& text) {
  std::optional<Progress> progress;
  if (!job.stream) progress.emplace(job.label + ", text", static_cast<std::size_t>(job.predict));
  std::vector<double> seconds;
  for (std::int32_t i = 0; i < job.predict; ++i) {
    const Clock::time_point start = Clock::now();
    const llama_token token = argmax(session.logits());
    text.add(token);
    step(session, token);
    seconds.push_back(seconds_since(start));
    if (progress) progress->update(seconds.size());
  }
  return seconds;
}

// The speed is over all steps, for a policy's occasional work is part of its price; the median step tells on
// a busy machine whether the speed can be trusted.
void add_decode_speed(json& figures, std::vector<double> seconds) {
  const double total = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  figures["decode_tokens_per_s"] = static_cast<double>(seconds.size()) / total;
  figures["decode_step_ms_median"] = *middle * 1e3;
}

void add_memory(json& figures, const Session& session, const std::optional<Plugin>& plugin) {
  figures["rss_bytes"] = memory_bytes("VmRSS");
  figures["rss_peak_bytes"] = memory_bytes("VmHWM");
  if (plugin) {
    const zeromerge_statistics statistics = plugin->statistics();
    figures["entries"] = statistics.entries;
    figures["kv_bytes"] = statistics.kv_bytes;
    figures["kv_bytes_peak"] = statistics.kv_bytes_peak;
    figures["engine_bytes"] = statistics.engine_bytes;
  } else {  // llama.cpp's cells only ever fill up
    figures["kv_bytes"] = figures["kv_bytes_peak"] = session.cell_bytes();
  }
}

}  // namespace

json run_speed(const Job& job, const std::optional<Plugin>& plugin) {
  return with_reason(plugin, [&] {
    const Model model(job.model, /*vocabulary_only=*/false);
    Session session(model, job);
    const Clock::time_point start = Clock::now();
    prefill(session, model, job, plugin);
    const double prefill_seconds = seconds_since(start);
    Text text(model, job.stream);
    const std::vector<double> step_seconds = decode(session, job, text);
    json figures{{"prefill_tokens_per_s", static_cast<double>(job.prompt.size()) / prefill_seconds},
                 {"text", text.str()}};
    add_decode_speed(figures, step_seconds);
    add_memory(figures, session, plugin);
    return figures;
  });
}

json run_reference(const Job& job) {
  const Model model(job.model, /*vocabulary_only=*/false);
  Session session(model, job);
  prefill(session, model, job, std::nullopt);
  RowWriter rows(job.logits_file);
  Tokens continuation;
  Progress progress(job.label + ", text", static_cast<std::size_t>(job.predict));
  for (std::int32_t i = 0; i < job.predict; ++i) {
    if (i > 0) step(session, continuation.back());
    rows.write(session.logits());
    continuation.push_back(job.continuation.empty() ? argmax(session.logits())
                                                    : job.continuation[static_cast<std::size_t>(i)]);
    progress.update(continuation.size());
  }
  rows.close();
  return {{"continuation", continuation}};
}

json run_compare(const Job& job, const std::optional<Plugin>& plugin) {
  return with_reason(plugin, [&] {
    const Model model(job.model, /*vocabulary_only=*/false);
    Session session(model, job);
    Clock::time_point start = Clock::now();
    prefill(session, model, job, plugin);
    json figures{{"prompt_tokens_per_second", static_cast<double>(job.prompt.size()) / seconds_since(start)}};
    if (plugin && job.heads) figures["heads"] = kept_of_prompt(*plugin);
    RowReader rows(job.logits_file, model.vocabulary());
    Agreement agreement;
    Progress progress(job.label + ", text", job.continuation.size());
    double step_seconds = 0.0;
    for (std::size_t i = 0; i < job.continuation.size(); ++i) {
      start = Clock::now();
      if (i > 0) step(session, job.continuation[i - 1]);
      if (i > 0) step_seconds += seconds_since(start);
      agreement.add(rows.next(), session.logits(), job.continuation[i]);
      progress.update(i + 1);
    }
    if (std::isnan(agreement.kl_mean())) throw std::runtime_error("the run's logits are not finite");
    figures["kl_mean"] = agreement.kl_mean();
    figures["top1_agreement"] = agreement.top1_agreement();
    figures["nll_delta"] = agreement.nll_delta();
    if (job.continuation.size() > 1)
      figures["decode_tokens_per_second"] = static_cast<double>(job.continuation.size() - 1) / step_seconds;
    if (plugin) figures.update(cache_figures(*plugin, model));
    return figures;
  });
}

json run_heads(const Job& job, const std::optional<Plugin>& plugin) {
  return with_reason(plugin, [&] {
    const Model model(job.model, /*vocabulary_only=*/false);
    Session session(model, job);
    prefill(session, model, job, plugin);
    return json{{"heads", kept_of_prompt(plugin.value())}};
  });
}

}  // namespace generate
