#include "engine/contenders.hpp"

#include <algorithm>
#include <fstream>

#include "engine/depth.hpp"

namespace bench {
namespace {

struct Setting {
  const char* option;
  const char* name;
  bool flash;
  const char* key_type;
  const char* value_type;
};
constexpr Setting kSettings[] = {{"flash-f16", kFlash, true, "f16", "f16"},
                                 {"flash-q8_0", "llama.cpp flash q8_0", true, "q8_0", "q8_0"},
                                 {"f16", "llama.cpp f16", false, "f16", "f16"},
                                 {"fastest", "llama.cpp K q8_0 V f16", false, "q8_0", "f16"}};

// Speed and memory do not depend on what the text says.
constexpr const char* kText =
    "The harbour was built in the year of the great storm, when forty boats were lost between the two "
    "lights. The town paid for it with a tax on salt, and the masons came from the north with their own "
    "stone. They laid the first course at low water on a spring tide and worked by lanterns until the sea "
    "came back. An old man kept the account of the days: so many blocks, so much lime, so much bread. When "
    "the mole was long enough to break the swell, the fishermen moved their boats behind it one after the "
    "other, and the women hung the nets along the wall to dry. ";

generate::Job base_job(const Options& options) {
  generate::Job job;
  job.model = options.model.string();
  job.threads = options.threads;
  job.prompt_threads = options.prompt_threads;
  job.predict = options.predict;
  return job;
}

}  // namespace

std::vector<std::string> setting_names() {
  std::vector<std::string> names;
  for (const Setting& setting : kSettings) names.emplace_back(setting.option);
  return names;
}

Field::Field(const Options& options, const generate::Scratch& scratch)
    : options_(options), scratch_(scratch), base_(base_job(options)) {
  for (const Setting& setting : kSettings) {
    const auto wanted = std::find(options.settings.begin(), options.settings.end(), setting.option);
    if (wanted == options.settings.end() && setting.name != kFlash) continue;
    Contender contender{setting.name, "", base_, "", false};
    contender.job.flash = setting.flash;
    contender.job.key_type = setting.key_type;
    contender.job.value_type = setting.value_type;
    contenders_.push_back(std::move(contender));
  }
  add_policy("full", kFull, "100%");
  for (const std::string& budget : options.budgets)
    add_policy("zeromerge:budget=" + budget, "zeromerge", budget);
  for (const std::string& spec : options.policies) add_policy(spec, spec, "");
}

// The plug-in checks the policy, and turns the text into tokens, in a process of its own.
void Field::add_policy(const std::string& spec, const std::string& name, const std::string& budget) {
  generate::Job job = base_;
  job.task = generate::Task::inspect;
  job.label = "checking the policy " + spec;
  job.policy = spec;
  job.prompt_file = scratch_.file("prompt.txt").string();
  std::ofstream(job.prompt_file) << kText;
  text_ = generate::run_job(job, options_.plugin, scratch_)["tokens"].get<std::vector<std::int32_t>>();
  Contender contender{name, budget, base_, "", false};
  contender.job.policy = spec;
  contenders_.push_back(std::move(contender));
}

std::vector<std::int32_t> Field::prompt(std::int32_t context) const {
  const auto block = static_cast<std::int32_t>(kBlock);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(std::max(context, block)));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = text_[i % kBlock % text_.size()];
  return tokens;
}

}  // namespace bench
