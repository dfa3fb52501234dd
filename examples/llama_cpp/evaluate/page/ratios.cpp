#include "evaluate/page/ratios.hpp"

#include <algorithm>
#include <cmath>

#include "evaluate/page/chart.hpp"
#include "evaluate/page/html.hpp"

namespace evaluate {
namespace {

constexpr double kWidth = 190, kMargin = 8;

bool is_finite(const Ratio& r) { return std::isfinite(r.low) && std::isfinite(r.high) && r.low > 0.0; }

// A dot at the ratio, a bar over its interval, a dashed line at 1.
std::string interval(const Ratio& ratio, const Scale& scale, std::size_t look) {
  const auto x = [&](double value) { return fixed(kMargin + (kWidth - 2 * kMargin) * scale.at(value), 1); };
  std::string out =
      "<svg class=\"interval\" viewBox=\"0 0 190 22\" aria-hidden=\"true\"><line class=\"mark\" x1=\"" +
      x(1.0) + "\" y1=\"0\" x2=\"" + x(1.0) + "\" y2=\"22\"/>";
  if (is_finite(ratio))
    out += "<line class=\"line c" + std::to_string(look % 8) + "\" x1=\"" + x(ratio.low) +
           "\" y1=\"11\" x2=\"" + x(ratio.high) + "\" y2=\"11\"/>" +
           marker(look, kMargin + (kWidth - 2 * kMargin) * scale.at(ratio.value), 11, "");
  return out + "</svg>";
}

std::string verdict(const Summary& s) {
  if (s.texts < 2) return "one text: no interval";
  if (s.ratio.high < 1.0) return "<span class=\"better\">better</span>";
  if (s.ratio.low > 1.0) return "<span class=\"worse\">worse</span>";
  return "no clear difference";
}

}  // namespace

std::string ratios(std::span<const Summary> summaries, const Policies& policies) {
  if (summaries.empty()) return "";
  const std::string& first = summaries.front().policy;
  std::vector<double> ends = {1.0 / 1.1, 1.1};
  std::vector<std::vector<std::string>> rows;
  for (const Summary& s : summaries)
    if (is_finite(s.ratio)) ends.insert(ends.end(), {s.ratio.low, s.ratio.high});
  const Scale scale = *fit({.title = "", .log = true}, ends);
  for (const Summary& s : summaries)
    if (s.policy != first)
      rows.push_back({policy_cell(policies, s.policy), escape(s.budget), fixed(s.ratio.value, 2) + "×",
                      fixed(s.ratio.low, 2) + " – " + fixed(s.ratio.high, 2),
                      interval(s.ratio, scale, policies.look(s.policy)), verdict(s)});
  if (rows.empty()) return "";
  return "<h3>Against the first policy</h3>\n<p class=\"small\">Mean KL divided by that of <code>" +
         escape(first) +
         "</code> at the same budget: the geometric mean over pairs of the same text, with two standard "
         "errors to either "
         "side. Below 1 is better; the dashed line is 1.</p>\n" +
         table({{"policy", true},
                {"budget"},
                {"KL ratio"},
                {"interval"},
                {"log scale", true},
                {"verdict", true}},
               rows);
}

}  // namespace evaluate
