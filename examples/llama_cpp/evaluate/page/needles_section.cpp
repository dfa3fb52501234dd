// Facts hidden in a text and asked for.
#include "evaluate/page/answers.hpp"
#include "evaluate/page/html.hpp"
#include "evaluate/page/sections.hpp"

namespace evaluate {
namespace {

using nlohmann::json;

std::string panel(const json& row) {
  const std::string asked = text_of(row, "asked");
  if (asked == "after") return "asked after compression";
  if (asked == "in") return "asked in the prompt";
  return asked.empty() ? "" : "asked " + asked;
}

// "right" of "counted" answers; in per cent.
Answer right(const json& row) {
  const auto right = number_of(row, "right"), counted = number_of(row, "counted");
  if (!right || !counted || *counted <= 0.0) return {};
  return {100.0 * *right / *counted, *counted};
}

std::string all_rows(const std::vector<json>& own, const Policies& policies) {
  std::vector<std::vector<std::string>> rows;
  for (const json& row : own)
    rows.push_back({escape(text_of(row, "text")), escape(text_of(row, "asked")),
                    policy_cell(policies, text_of(row, "policy")), escape(text_of(row, "budget")),
                    count(number_of(row, "entries").value_or(0.0)),
                    count(number_of(row, "bytes").value_or(0.0)),
                    escape(text_of(row, "right")) + " of " + escape(text_of(row, "counted"))});
  return "<details><summary>All " + std::to_string(rows.size()) + " rows, text by text</summary>\n" +
         table({{"text", true},
                {"asked", true},
                {"policy", true},
                {"budget"},
                {"entries/head"},
                {"bytes"},
                {"right"}},
               rows) +
         "</details>\n";
}

// Of what the full cache answers right, for nothing else is asked of a policy.
std::string full_note(const json& findings) {
  std::string out;
  for (const AnswerMean& m : answer_means(rows_of(findings, "needles", "floor"), panel, right))
    out += "<p class=\"small\">" + escape(m.panel.empty() ? "" : m.panel + ": ") +
           "with everything kept the model answers " + count(m.value * m.weight / 100.0) + " of " +
           count(m.weight) + " questions right; only those count.</p>\n";
  return out;
}

}  // namespace

std::string needles_section(const json& findings, const Policies& policies) {
  const std::vector<json> own = rows_of(findings, "needles");
  if (own.empty()) return "";
  const std::vector<AnswerMean> means = answer_means(own, panel, right);
  std::vector<std::vector<std::string>> rows;
  for (const AnswerMean& m : means)
    rows.push_back({escape(m.panel), policy_cell(policies, m.policy), escape(m.budget), count(m.entries),
                    count(m.bytes), fixed(m.value, 1) + "%", count(m.weight)});
  Chart chart;
  chart.id = "chart-needles";
  chart.title = "Needles found";
  chart.note = "Questions that are answered right, over all texts; higher and further left is better.";
  chart.y = {.title = "answered right (%)", .low = 0.0, .high = 104.0};
  return "<section id=\"needles\">\n<h2>Needles</h2>\n<p class=\"lead\">Facts are hidden in a long text, "
         "then asked for.</p>\n" +
         full_note(findings) + legend(policies.names()) + "<div class=\"charts\">\n" +
         answer_charts(means, {}, chart, policies) + "</div>\n" +
         table(
             {{"", true}, {"policy", true}, {"budget"}, {"entries/head"}, {"bytes"}, {"right"}, {"answers"}},
             rows) +
         all_rows(own, policies) + "</section>\n";
}

}  // namespace evaluate
