#include "calibrate/profile.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <ostream>

#include "generate/error.hpp"
#include "generate/job.hpp"
#include "generate/process.hpp"

namespace calibrate {
namespace {

using generate::Job;
using generate::Task;
using nlohmann::json;

class Measurement {
 public:
  explicit Measurement(const Options& options) : options_(options) {
    for (const double budget : options.levels) levels_.push_back({budget, {}});
  }

  std::vector<Level> run() {
    std::vector<std::vector<std::int32_t>> prompts;
    for (const auto& text : options_.texts) prompts.push_back(read(text));
    std::size_t done = 0;
    for (std::size_t i = 0; i < prompts.size(); ++i)
      for (Level& level : levels_) {
        Job job = make(Task::heads);
        job.label = "[" + std::to_string(++done) + "/" + std::to_string(prompts.size() * levels_.size()) +
                    "] " + options_.texts[i].filename().string() + " at " + percent(level.budget);
        job.prompt = prompts[i];
        job.policy = "kvzip:floor=20%,tail=4,least=1,budget=" + percent(level.budget);
        add(level, generate::run_job(job, options_.plugin, scratch_)["heads"]["layers"]);
      }
    return levels_;
  }

 private:
  static std::string percent(double share) {
    char text[32];
    std::snprintf(text, sizeof text, "%g%%", 100.0 * share);
    return text;
  }

  Job make(Task task) const {
    Job job;
    job.task = task;
    job.model = options_.model.string();
    job.threads = job.prompt_threads = options_.threads;
    job.ctx = (options_.prompt_tokens + 255) / 256 * 256;
    return job;
  }

  std::vector<std::int32_t> read(const std::filesystem::path& text) {
    Job job = make(Task::inspect);
    job.label = "reading " + text.filename().string();
    job.prompt_file = text.string();
    auto tokens =
        generate::run_job(job, options_.plugin, scratch_)["tokens"].get<std::vector<std::int32_t>>();
    const auto wanted = static_cast<std::size_t>(options_.prompt_tokens);
    if (tokens.size() < wanted)
      throw generate::UsageError("--text: " + text.string() + " has " + std::to_string(tokens.size()) +
                                 " tokens, " + std::to_string(wanted) +
                                 " are asked for; give a longer text or a smaller --prompt-tokens");
    tokens.resize(wanted);
    return tokens;
  }

  // Adds one text's part to the shares.
  void add(Level& level, const json& layers) const {
    double sum = 0.0, heads = 0.0;
    for (const json& layer : layers)
      for (const json& head : layer) {
        sum += head["entries"].get<double>();
        ++heads;
      }
    level.shares.resize(layers.size());
    for (std::size_t l = 0; l < layers.size(); ++l) {
      level.shares[l].resize(layers[l].size(), 0.0);
      for (std::size_t h = 0; h < layers[l].size(); ++h)
        level.shares[l][h] +=
            layers[l][h]["entries"].get<double>() * heads / sum / static_cast<double>(options_.texts.size());
    }
  }

  const Options& options_;
  generate::Scratch scratch_;
  std::vector<Level> levels_;
};

}  // namespace

std::vector<Level> measure_profile(const Options& options) { return Measurement(options).run(); }

void write_profile(std::ostream& out, const Options& options, const std::vector<Level>& levels) {
  out << "zeromerge-profile 1\n# " << options.model.filename().string() << ", " << options.prompt_tokens
      << " tokens each of";
  for (const auto& text : options.texts) out << ' ' << text.filename().string();
  out << "\nlayers " << levels.front().shares.size() << " kv_heads " << levels.front().shares.front().size()
      << '\n';
  for (const Level& level : levels) {
    out << "budget " << level.budget << '\n';
    for (const auto& layer : level.shares) {
      for (std::size_t h = 0; h < layer.size(); ++h) {
        char text[32];
        std::snprintf(text, sizeof text, "%s%.4f", h == 0 ? "" : " ", layer[h]);
        out << text;
      }
      out << '\n';
    }
  }
}

void print_map(std::ostream& out, const std::vector<Level>& levels) {
  static constexpr const char* kShades[] = {"·", "░", "▒", "▓", "█"};
  constexpr double kFrom[] = {0.5, 1.0, 2.0, 4.0};
  out << "layer  ";
  for (const Level& level : levels) {
    char text[32];
    std::snprintf(text, sizeof text, "%-8g", level.budget);
    out << text;
  }
  out << "  (share of a head: · below 0.5, ░ 1, ▒ 2, ▓ 4, █ above)\n";
  for (std::size_t l = 0; l < levels.front().shares.size(); ++l) {
    char number[32];
    std::snprintf(number, sizeof number, "%5zu  ", l);
    out << number;
    for (const Level& level : levels) {
      for (const double share : level.shares[l])
        out << kShades[std::upper_bound(std::begin(kFrom), std::end(kFrom), share) - std::begin(kFrom)];
      out << std::string(8 - std::min<std::size_t>(7, level.shares[l].size()), ' ');
    }
    out << '\n';
  }
}

}  // namespace calibrate
