#include "engine/group.hpp"

#include <algorithm>
#include <iostream>
#include <stdexcept>
#include <utility>

#include "engine/depth.hpp"
#include "engine/verify.hpp"

namespace bench {
namespace {

using nlohmann::json;

std::int32_t padded(std::size_t tokens) {
  return static_cast<std::int32_t>((tokens + 255) / 256 * 256);  // as llama.cpp pads a cache
}

// Contenders whose cells have the same types and layout share one.
std::string block_name(const generate::Job& job) {
  return "block-" + job.key_type + "-" + job.value_type + (job.flash ? "-flash" : "");
}

}  // namespace

Group::Group(const Options& options, const std::vector<Contender>& contenders, std::int32_t context,
             std::vector<std::int32_t> prompt, const generate::Scratch& scratch)
    : options_(options),
      contenders_(contenders),
      context_(context),
      prompt_(std::move(prompt)),
      scratch_(scratch) {}

std::vector<Measured> Group::run() {
  members_.clear();
  members_.reserve(contenders_.size());
  for (const Contender& contender : contenders_) start(contender);
  for (std::int32_t r = 1; r <= options_.repetitions; ++r) round(r);
  std::vector<Measured> measured;
  for (Member& member : members_) {
    const Measured& m = member.measured;
    if (m.contender->plugged())
      verify_unbroken(*m.contender, m.statistics, member.child.ask({{"statistics", true}}));
    measured.push_back(std::move(member.measured));
  }
  members_.clear();
  return measured;
}

json Group::request(const Contender& contender) const {
  const Depth depth{contender.empty ? 0 : static_cast<std::size_t>(context_), options_.copied, ""};
  const auto steps =
      static_cast<std::size_t>(options_.predict + 1) * static_cast<std::size_t>(options_.repetitions);
  generate::Job job = contender.job;
  job.prompt = prompt_;
  job.sequences = options_.copied && !contender.empty ? 2 : 1;
  job.ctx = padded(std::max(depth.tokens + steps, cells_needed(depth)));
  return {{"job", job},
          {"context", depth.tokens},
          {"copied", depth.copied},
          {"empty", contender.empty},
          {"block_file", scratch_.file(block_name(job)).string()}};
}

void Group::start(const Contender& contender) {
  std::cerr << context_ << " tokens, filling: " << contender.name
            << (contender.budget.empty() ? "" : " " + contender.budget) << std::endl;
  Child child(contender, options_.plugin);
  json statistics = child.ask(request(contender));
  if (!contender.empty) verify_filled(contender, statistics, static_cast<std::size_t>(context_));
  members_.push_back({std::move(child), {&contender, std::move(statistics), {}}});
}

void Group::round(std::int32_t number) {
  std::cerr << context_ << " tokens, round " << number << " of " << options_.repetitions << ':';
  for (Member& member : members_) {
    const double seconds = member.child.ask({{"burst", options_.predict}}).at("seconds");
    member.measured.speeds.push_back(options_.predict / seconds);
    char text[32];
    std::snprintf(text, sizeof text, " %.1f", member.measured.speeds.back());
    std::cerr << text << std::flush;
  }
  std::cerr << " tokens/s" << std::endl;
}

}  // namespace bench
