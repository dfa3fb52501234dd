#include "evaluate/continuation.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "evaluate/runner.hpp"
#include "generate/error.hpp"

namespace evaluate {
namespace {

using generate::Job;
using generate::Task;
using nlohmann::json;

class Continuation {
 public:
  Continuation(const Options& options, Findings& findings, const Changed& changed)
      : options_(options),
        findings_(findings),
        changed_(changed),
        runner_(options),
        counter_(options.texts.size() * (1 + options.policies.size() * options.budgets.size())) {}

  void run() {
    read_texts();
    runner_.expand();
    for (std::size_t i = 0; i < options_.texts.size(); ++i)
      measure(options_.texts[i].filename().string(), tokens_[i]);
  }

 private:
  static constexpr std::array kRun = {"text", "policy", "budget"};

  std::size_t needed() const { return static_cast<std::size_t>(options_.prompt_tokens + options_.predict); }

  // Finds out what is wrong with a text before any heavy work.
  void read_texts() {
    for (const std::filesystem::path& text : options_.texts) {
      Job job = runner_.job(Task::inspect, 0);
      job.label = "reading " + text.filename().string();
      job.prompt_file = text.string();
      tokens_.push_back(runner_.run(job)["tokens"].get<Tokens>());
      if (tokens_.back().size() < needed())
        throw generate::UsageError(
            "--text: " + text.string() + " has " + std::to_string(tokens_.back().size()) + " tokens, " +
            std::to_string(needed()) + " are asked for; give a longer text or a smaller --prompt-tokens");
    }
  }

  void measure(const std::string& text, const Tokens& tokens) {
    Job job = runner_.job(Task::compare, needed());
    const auto prompt_end = tokens.begin() + options_.prompt_tokens;
    job.predict = options_.predict;
    job.prompt.assign(tokens.begin(), prompt_end);
    job.continuation.assign(prompt_end, prompt_end + options_.predict);
    job.logits_file = runner_.scratch_file("logits.f32");
    reference_done_ = false;
    const auto key = [&](const std::string& policy, const std::string& budget) {
      return json{{"task", "continuation"}, {"text", text}, {"policy", policy}, {"budget", budget}};
    };
    add(findings_.floor, key("full", "100%"), "full", job);
    for (const std::string& budget : options_.budgets)
      for (const std::string& policy : options_.policies)
        add(findings_.rows, key(policy, budget), runner_.spec(policy, budget), job);
  }

  // The run whose heads are to be mapped.
  bool is_mapped(const json& row) const {
    return row["text"] == options_.texts.front().filename().string() &&
           row["policy"] == options_.heads_policy && row["budget"] == options_.heads_budget;
  }
  bool has_map(const json& row) const {
    const json& heads = findings_.heads;
    return heads.is_object() && std::all_of(kRun.begin(), kRun.end(), [&](const char* name) {
             return heads.value(name, "") == row[name];
           });
  }

  void add(json& rows, json row, const std::string& policy, Job job) {
    const std::string label = counter_.next() + row["text"].get<std::string>() + ", ";
    const bool known = has(rows, row);
    job.heads = is_mapped(row) && !has_map(row);
    if (known && !job.heads) return;
    if (!reference_done_) {
      Job reference = job;
      reference.task = Task::reference;
      reference.label = label + "llama.cpp";
      reference.flash = false;
      (void)runner_.run(reference);
      reference_done_ = true;
    }
    job.label = label + policy;
    job.policy = policy;
    json result = runner_.run(job);
    row["entries"] = result["entries_per_head"];
    row["bytes"] = result["kv_bytes"];
    for (const char* figure :
         {"kl_mean", "top1_agreement", "nll_delta", "prompt_tokens_per_second", "decode_tokens_per_second"})
      if (result.contains(figure)) row[figure] = result[figure];
    if (job.heads) {
      findings_.heads = std::move(result["heads"]);
      for (const char* name : kRun) findings_.heads[name] = row[name];
    }
    if (!known) rows.push_back(row);
    changed_();
  }

  const Options& options_;
  Findings& findings_;
  const Changed& changed_;
  Runner runner_;
  Counter counter_;
  std::vector<Tokens> tokens_;
  bool reference_done_ = false;
};

}  // namespace

void measure_continuation(const Options& options, Findings& findings, const Changed& changed) {
  Continuation(options, findings, changed).run();
}

}  // namespace evaluate
