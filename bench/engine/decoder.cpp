#include "engine/decoder.hpp"

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>

#include "engine/depth.hpp"
#include "generate/compare.hpp"
#include "generate/error.hpp"
#include "generate/model.hpp"
#include "generate/plugin.hpp"

namespace bench {
namespace {

using generate::Job;
using generate::Model;
using generate::Plugin;
using generate::Session;
using nlohmann::json;

std::optional<Plugin> configured_plugin(const Job& job) {
  if (job.policy.empty()) return std::nullopt;
  Plugin plugin;
  plugin.configure(job.policy, job.reclaim);
  return plugin;
}

class Decoder {
 public:
  explicit Decoder(const json& start)
      : job_(start.at("job").get<Job>()),
        empty_(start.at("empty")),
        plugin_(configured_plugin(job_)),
        model_(job_.model, /*vocabulary_only=*/false),
        session_(model_, job_),
        token_(job_.prompt.at(0)) {
    if (empty_) return;
    fill(session_, model_, job_, {start.at("context"), start.at("copied"), start.at("block_file")});
    if (plugin_) plugin_->finish_prompt();
    token_ = generate::argmax(session_.logits());
  }

  // One step more than is timed: the other contenders have had the CPU's caches meanwhile.
  double burst(int steps) {
    if (empty_) {
      llama_memory_clear(llama_get_memory(session_.context()), /*data=*/false);
      session_.set_position(0);
    }
    step();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i) step();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  json statistics() const {
    json figures{{"tokens", session_.position()}, {"kv_bytes", session_.cell_bytes()}};
    if (!plugin_) return figures;
    const zeromerge_statistics counts = plugin_->statistics();
    if (counts.caches == 0) throw std::runtime_error("the plug-in holds no cache");
    const double caches = static_cast<double>(counts.caches);
    figures["cached_tokens"] = static_cast<double>(counts.tokens) / caches;
    figures["entries"] = counts.entries;
    figures["entries_per_head"] =
        static_cast<double>(counts.entries) / (caches * static_cast<double>(model_.kv_heads()));
    figures["kv_bytes"] = counts.kv_bytes;
    figures["rebuilds"] = counts.rebuilds;
    figures["stateless_calls"] = counts.stateless_calls;
    return figures;
  }

  std::string reason() const { return plugin_ ? plugin_->last_error() : ""; }

 private:
  void step() {
    session_.feed(std::span(&token_, 1), /*want_logits=*/true);
    token_ = generate::argmax(session_.logits());
  }

  Job job_;
  bool empty_;
  std::optional<Plugin> plugin_;
  Model model_;
  Session session_;
  llama_token token_;
};

json answer(std::optional<Decoder>& decoder, const json& request) {
  if (request.contains("job")) decoder.emplace(request);
  if (!decoder) throw std::runtime_error("the first request must bring a job");
  if (request.contains("burst")) return {{"seconds", decoder->burst(request["burst"])}};
  return decoder->statistics();
}

}  // namespace

int decoder_main() {
  generate::start_llama(/*warnings=*/false);
  std::optional<Decoder> decoder;
  for (std::string line; std::getline(std::cin, line);) {
    json result;
    try {
      result = answer(decoder, json::parse(line));
    } catch (const generate::UsageError& error) {
      result = {{"error", error.what()}, {"usage", true}};
    } catch (const std::exception& error) {
      const std::string reason = decoder ? decoder->reason() : "";
      result = {{"error", error.what() + (reason.empty() ? "" : "; the plug-in says: " + reason)}};
    }
    std::cout << result.dump() << std::endl;
  }
  return 0;
}

}  // namespace bench
