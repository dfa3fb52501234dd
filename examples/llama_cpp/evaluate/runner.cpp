#include "evaluate/runner.hpp"

#include <fstream>
#include <sstream>

#include "evaluate/budget.hpp"
#include "generate/error.hpp"
#include "generate/expanded_model.hpp"

namespace evaluate {

using generate::Job;
using generate::Task;
using nlohmann::json;

Runner::Runner(const Options& options) : options_(options), model_(options.model.string()) {
  Job look = job(Task::tokenize, 0);
  look.label = "reading " + options.model.filename().string();
  const json result = run(look);
  begin_ = result["begin"].get<Tokens>();
  exact_weights_ = result["exact_weights"];
  head_dim_ = result["head_dim"];
  for (const std::string& policy : options.policies)
    for (const std::string& budget : options.budgets) {
      look.label = "reading " + policy;
      look.policy = spec(policy, budget);
      (void)run(look);
    }
}

Job Runner::job(Task task, std::size_t tokens) const {
  Job job;
  job.task = task;
  job.model = model_;
  job.threads = job.prompt_threads = options_.threads;
  job.ctx = static_cast<std::int32_t>((tokens + 255) / 256 * 256);
  return job;
}

void Runner::expand() {
  if (exact_weights_) return;
  Job work = job(Task::expand, 0);
  work.label = "expanding the model's weights to f16";
  model_ = generate::expanded_model(work, [&](const Job& j) { (void)run(j); }).string();
}

std::vector<Tokenized> Runner::tokenize(const std::vector<std::string>& texts) {
  Job work = job(Task::tokenize, 0);
  work.label = "turning texts into tokens";
  work.texts = texts;
  const json result = run(work);
  std::vector<Tokenized> all;
  for (std::size_t i = 0; i < texts.size(); ++i)
    all.push_back(
        {texts[i], result["tokens"][i].get<Tokens>(), result["sizes"][i].get<std::vector<std::size_t>>()});
  return all;
}

Tokenized Runner::read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) throw generate::UsageError("--text: " + path.string() + " cannot be read");
  return tokenize({text.str()}).front();
}

std::string Runner::spec(const std::string& policy, const std::string& budget) const {
  return with_budget(policy, budget, options_.equal_bytes, static_cast<std::size_t>(options_.prompt_tokens),
                     head_dim_);
}

}  // namespace evaluate
