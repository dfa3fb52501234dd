#include "generate/plan.hpp"

#include <algorithm>
#include <fstream>
#include <iostream>

#include "generate/error.hpp"
#include "generate/expanded_model.hpp"
#include "generate/process.hpp"

namespace generate {
namespace {

using nlohmann::json;

class Plan {
 public:
  explicit Plan(const Options& options) : options_(options) {
    base_.threads = options.threads;
    base_.prompt_threads = options.prompt_threads;
    base_.reclaim = options.reclaim;
    base_.predict = options.predict;
    base_.model = options.model.string();
    choose_runs();
  }

  Report execute() {
    inspect();
    jobs_ = options_.compare ? 2 * runs_.size() + 1 : 1;
    for (Run& run : runs_) measure_speed(run);
    if (options_.compare) compare_predictions();
    return {options_.model.string(),
            comparison_model_,
            base_.prompt.size(),
            static_cast<std::size_t>(options_.predict),
            base_.ctx,
            options_.threads,
            options_.prompt_threads,
            options_.reclaim,
            runs_};
  }

 private:
  void choose_runs() {
    const std::string preset = options_.policy.substr(0, options_.policy.find(':'));
    runs_.push_back({preset, options_.policy, "policy " + options_.policy, false, {}});
    if (!options_.compare) return;
    if (preset != "full")
      runs_.push_back({"full", "full", "nothing left out, through the plug-in", false, {}});
    runs_.push_back({"llama.cpp", "", "without the plug-in, flash attention, K and V f16", false, {}});
    runs_.push_back(
        {"llama.cpp-fastest", "", "without the plug-in, no flash attention, K q8_0, V f16", true, {}});
  }

  // Finds what is wrong with the policy, the model or the prompt before any heavy work.
  void inspect() {
    Job job = base_;
    job.task = Task::inspect;
    job.label = "reading the prompt";
    job.policy = options_.policy;
    job.warnings = true;
    job.prompt_file = options_.prompt_file.string();
    if (options_.prompt_file.empty()) {
      job.prompt_file = scratch_.file("prompt.txt").string();
      std::ofstream(job.prompt_file, std::ios::binary) << options_.prompt;
    }
    const json result = run_job(job, options_.plugin, scratch_);
    base_.prompt = result["tokens"].get<std::vector<std::int32_t>>();
    weights_are_exact_ = result["exact_weights"];
    choose_context();
  }

  void choose_context() {
    const auto needed = static_cast<std::int32_t>(base_.prompt.size()) + options_.predict;
    const std::int32_t rounded = (needed + 255) / 256 * 256;  // llama.cpp's own padding of a cache
    if (options_.ctx != 0 && options_.ctx < needed) {
      throw UsageError("--ctx: " + std::to_string(options_.ctx) + " tokens cannot hold the prompt's " +
                       std::to_string(base_.prompt.size()) + " and the " + std::to_string(options_.predict) +
                       " to be predicted; give --ctx " + std::to_string(rounded) + " or more, or --ctx 0");
    }
    base_.ctx = options_.ctx != 0 ? options_.ctx : rounded;
  }

  std::string next_label(const std::string& name, const char* what) {
    return "[" + std::to_string(++started_) + "/" + std::to_string(jobs_) + "] " + name + ", " + what;
  }

  Job job_for(const Run& run, Task task, const char* what) {
    Job job = base_;
    job.task = task;
    job.label = next_label(run.name, what);
    job.policy = run.policy;
    job.flash = !run.fastest;
    if (run.fastest) job.key_type = "q8_0";
    return job;
  }

  void measure_speed(Run& run) {
    const bool first = &run == &runs_.front();
    Job job = job_for(run, Task::speed, "speed");
    job.stream = first;
    job.warnings = first;
    run.figures = run_job(job, options_.plugin, scratch_);
    if (first) std::cout << std::endl;
  }

  void compare_predictions() {
    Job base = base_;
    base.label = "expanding the model's weights to f16";
    base.task = Task::expand;
    comparison_model_ = base.model;
    if (!weights_are_exact_) {
      comparison_model_ =
          expanded_model(base, [&](const Job& job) { run_job(job, options_.plugin, scratch_); }).string();
    }
    const std::vector<std::int32_t> continuation = make_reference();
    for (Run& run : runs_) compare(run, continuation);
  }

  std::string logits_file() const { return scratch_.file("logits.f32").string(); }

  // Plain llama.cpp without flash attention: its flash attention sums values in f16, which on a long document
  // is further from its own other path than a cache that keeps everything may be.
  std::vector<std::int32_t> make_reference() {
    Job job = base_;
    job.task = Task::reference;
    job.label = next_label("llama.cpp without flash attention", "reference");
    job.flash = false;
    job.model = comparison_model_;
    job.logits_file = logits_file();
    return run_job(job, options_.plugin, scratch_)["continuation"].get<std::vector<std::int32_t>>();
  }

  void compare(Run& run, const std::vector<std::int32_t>& continuation) {
    Job job = job_for(run, Task::compare, "comparison");
    job.model = comparison_model_;
    job.logits_file = logits_file();
    job.continuation = continuation;
    run.figures.update(run_job(job, options_.plugin, scratch_));
  }

  const Options& options_;
  Scratch scratch_;
  Job base_;
  std::vector<Run> runs_;
  std::string comparison_model_;
  bool weights_are_exact_ = false;
  std::size_t started_ = 0;
  std::size_t jobs_ = 0;
};

}  // namespace

Report measure(const Options& options) { return Plan(options).execute(); }

}  // namespace generate
