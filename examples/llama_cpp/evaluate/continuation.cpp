#include "evaluate/continuation.hpp"

#include <algorithm>
#include <filesystem>

#include "evaluate/budget.hpp"
#include "generate/error.hpp"
#include "generate/expanded_model.hpp"
#include "generate/job.hpp"
#include "generate/process.hpp"

namespace evaluate {
namespace {

using generate::Job;
using generate::Task;
using nlohmann::json;

class Continuation {
 public:
  Continuation(const Options& options, Findings& findings, const std::function<void()>& changed)
      : options_(options), findings_(findings), changed_(changed) {
    base_.threads = base_.prompt_threads = options.threads;
    base_.predict = options.predict;
    base_.model = options.model.string();
    base_.ctx = (options.prompt_tokens + options.predict + 255) / 256 * 256;
    rows_ = options.texts.size() * (1 + options.policies.size() * options.budgets.size());
  }

  void run() {
    read_texts();
    expand();
    for (std::size_t i = 0; i < options_.texts.size(); ++i) measure(name(i), tokens_[i]);
  }

 private:
  std::string name(std::size_t i) const { return options_.texts[i].filename().string(); }

  // Finds out what is wrong with a text or a policy before any heavy work.
  void read_texts() {
    const auto needed = static_cast<std::size_t>(options_.prompt_tokens + options_.predict);
    for (const std::filesystem::path& text : options_.texts) {
      Job job = base_;
      job.task = Task::inspect;
      job.label = "reading " + text.filename().string();
      job.prompt_file = text.string();
      const json result = generate::run_job(job, options_.plugin, scratch_);
      tokens_.push_back(result["tokens"].get<std::vector<std::int32_t>>());
      if (tokens_.back().size() < needed)
        throw generate::UsageError(
            "--text: " + text.string() + " has " + std::to_string(tokens_.back().size()) + " tokens, " +
            std::to_string(needed) + " are asked for; give a longer text or a smaller --prompt-tokens");
      exact_weights_ = result["exact_weights"];
      head_dim_ = result["head_dim"];
    }
    for (const std::string& policy : options_.policies)
      for (const std::string& budget : options_.budgets) {
        Job job = base_;
        job.task = Task::inspect;
        job.label = "reading " + policy;
        job.policy = spec(policy, budget);
        job.prompt_file = options_.texts.front().string();
        (void)generate::run_job(job, options_.plugin, scratch_);
      }
  }

  void expand() {
    if (exact_weights_) return;
    Job job = base_;
    job.task = Task::expand;
    job.label = "expanding the model's weights to f16";
    base_.model = generate::expanded_model(job, [&](const Job& j) {
                    (void)generate::run_job(j, options_.plugin, scratch_);
                  }).string();
  }

  std::string spec(const std::string& policy, const std::string& budget) const {
    return with_budget(policy, budget, options_.equal_bytes, static_cast<std::size_t>(options_.prompt_tokens),
                       head_dim_);
  }

  static bool has(const std::vector<Row>& rows, const Row& row) {
    return std::any_of(rows.begin(), rows.end(), [&](const Row& r) {
      return r.text == row.text && r.policy == row.policy && r.budget == row.budget;
    });
  }

  void measure(const std::string& text, const std::vector<std::int32_t>& tokens) {
    Job job = base_;
    const auto prompt_end = tokens.begin() + options_.prompt_tokens;
    job.prompt.assign(tokens.begin(), prompt_end);
    job.continuation.assign(prompt_end, prompt_end + options_.predict);
    job.logits_file = scratch_.file("logits.f32").string();
    reference_done_ = false;
    add(findings_.floor, {.text = text, .policy = "full", .budget = "100%"}, "full", job);
    for (const std::string& budget : options_.budgets)
      for (const std::string& policy : options_.policies)
        add(findings_.rows, {.text = text, .policy = policy, .budget = budget}, spec(policy, budget), job);
  }

  // The run whose heads are to be mapped.
  bool is_mapped(const Row& row) const {
    return row.text == name(0) && row.policy == options_.heads_policy && row.budget == options_.heads_budget;
  }
  bool has_map(const Row& row) const {
    const Heads& heads = findings_.heads;
    return heads.is_object() && heads.value("text", "") == row.text &&
           heads.value("policy", "") == row.policy && heads.value("budget", "") == row.budget;
  }

  void add(std::vector<Row>& rows, Row row, const std::string& policy, Job job) {
    ++number_;
    const bool known = has(rows, row);
    const bool map = is_mapped(row) && !has_map(row);
    if (known && !map) return;
    const std::string label =
        "[" + std::to_string(number_) + "/" + std::to_string(rows_) + "] " + row.text + ", ";
    if (!reference_done_) {
      Job reference = job;
      reference.task = Task::reference;
      reference.label = label + "llama.cpp";
      reference.flash = false;
      (void)generate::run_job(reference, options_.plugin, scratch_);
      reference_done_ = true;
    }
    job.task = Task::compare;
    job.label = label + policy;
    job.policy = policy;
    job.heads = map;
    json result = generate::run_job(job, options_.plugin, scratch_);
    row.kl_mean = result["kl_mean"];
    row.top1_agreement = result["top1_agreement"];
    row.nll_delta = result["nll_delta"];
    row.entries = result["entries_per_head"];
    row.bytes = result["kv_bytes"];
    row.prompt_tokens_per_second = result["prompt_tokens_per_second"];
    row.decode_tokens_per_second = result.value("decode_tokens_per_second", 0.0);
    if (map) {
      findings_.heads = std::move(result["heads"]);
      findings_.heads.update({{"text", row.text}, {"policy", row.policy}, {"budget", row.budget}});
    }
    if (!known) rows.push_back(row);
    changed_();
  }

  const Options& options_;
  Findings& findings_;
  const std::function<void()>& changed_;
  generate::Scratch scratch_;
  Job base_;
  std::vector<std::vector<std::int32_t>> tokens_;
  bool exact_weights_ = false;
  bool reference_done_ = false;
  std::size_t head_dim_ = 0;
  std::size_t rows_ = 0;
  std::size_t number_ = 0;
};

}  // namespace

void measure_continuation(const Options& options, Findings& findings, const std::function<void()>& changed) {
  Continuation(options, findings, changed).run();
}

}  // namespace evaluate
