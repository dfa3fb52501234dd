#include "engine/verify.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace bench {
namespace {

constexpr double kLeast = 32;  // entries that a share never goes below (`least` of the policy)

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", x);
  return text;
}

[[noreturn]] void fail(const Contender& contender, const std::string& what) {
  throw std::runtime_error(contender.name + " " + contender.budget + ": " + what);
}

double allowed_entries(const Contender& contender, double context) {
  const double amount = std::stod(contender.budget);
  return contender.budget.back() == '%' ? std::max(amount / 100 * context, kLeast) : amount;
}

}  // namespace

void verify_filled(const Contender& contender, const nlohmann::json& statistics, std::size_t context) {
  const auto tokens = static_cast<double>(context);
  if (const double held = statistics.at("tokens"); held != tokens)
    fail(contender, "holds " + number(held) + " tokens instead of " + number(tokens));
  if (!contender.plugged()) return;
  if (const double held = statistics.at("cached_tokens"); held != tokens)
    fail(contender, "the plug-in's caches hold " + number(held) + " tokens instead of " + number(tokens));
  if (contender.budget.empty()) return;
  const double entries = statistics.at("entries_per_head");
  const double allowed = std::min(allowed_entries(contender, tokens), tokens);
  const bool full = contender.name == kFull;
  if (full ? entries != tokens : entries > allowed + 1)
    fail(contender, "holds " + number(entries) + " entries per head instead of " + number(allowed));
}

void verify_unbroken(const Contender& contender, const nlohmann::json& before, const nlohmann::json& after) {
  for (const char* count : {"rebuilds", "stateless_calls"}) {
    if (after.at(count) == before.at(count)) continue;
    fail(contender, std::string(count) + " went from " + before.at(count).dump() + " to " +
                        after.at(count).dump() + " while it was timed");
  }
}

}  // namespace bench
