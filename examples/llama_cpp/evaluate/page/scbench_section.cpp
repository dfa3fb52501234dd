// One compressed context, several questions in turn.
#include <algorithm>

#include "evaluate/page/answers.hpp"
#include "evaluate/page/html.hpp"
#include "evaluate/page/sections.hpp"

namespace evaluate {
namespace {

using nlohmann::json;

// A row without a count stands for one answer.
double weight(const json& row) { return number_of(row, "counted").value_or(1.0); }

std::string panel(const json& row) {
  const std::string mode = text_of(row, "mode"), kind = text_of(row, "kind");
  return kind + (kind.empty() || mode.empty() ? "" : ", ") + mode;
}

Answer score(const json& row) {
  const auto value = number_of(row, "score");
  return value ? Answer{*value, weight(row)} : Answer{};
}

Answer nll_change(const json& row) {
  const auto own = number_of(row, "answer_nll"), full = number_of(row, "answer_nll_full");
  return own && full ? Answer{*own - *full, weight(row)} : Answer{};
}

std::string figure_cell(const json& row, const char* key) {
  const auto value = number_of(row, key);
  return value ? fixed(*value, 3) : "–";
}

std::string all_rows(const std::vector<json>& own, const Policies& policies) {
  std::vector<std::vector<std::string>> rows;
  for (const json& row : own)
    rows.push_back({escape(text_of(row, "kind")), escape(text_of(row, "mode")),
                    policy_cell(policies, text_of(row, "policy")), escape(text_of(row, "budget")),
                    escape(text_of(row, "turn")), count(number_of(row, "entries").value_or(0.0)),
                    count(number_of(row, "bytes").value_or(0.0)), figure_cell(row, "score"),
                    figure_cell(row, "answer_nll"), figure_cell(row, "answer_nll_full"),
                    escape(text_of(row, "counted"))});
  return "<details><summary>All " + std::to_string(rows.size()) + " rows, turn by turn</summary>\n" +
         table({{"kind", true},
                {"mode", true},
                {"policy", true},
                {"budget"},
                {"turn"},
                {"entries/head"},
                {"bytes"},
                {"score"},
                {"answer NLL"},
                {"NLL, full"},
                {"answers"}},
               rows) +
         "</details>\n";
}

std::string means_table(const std::vector<AnswerMean>& scores, const std::vector<AnswerMean>& changes,
                        const Policies& policies) {
  std::vector<std::vector<std::string>> rows;
  for (const AnswerMean& m : scores) {
    const auto change = std::find_if(changes.begin(), changes.end(), [&](const AnswerMean& c) {
      return c.panel == m.panel && c.policy == m.policy && c.budget == m.budget;
    });
    rows.push_back({escape(m.panel), policy_cell(policies, m.policy), escape(m.budget), count(m.entries),
                    count(m.bytes), fixed(m.value, 3),
                    change == changes.end() ? "–" : with_sign(change->value, 3), count(m.weight)});
  }
  return table({{"", true},
                {"policy", true},
                {"budget"},
                {"entries/head"},
                {"bytes"},
                {"score"},
                {"NLL change"},
                {"answers"}},
               rows);
}

}  // namespace

std::string scbench_section(const json& findings, const Policies& policies) {
  const std::vector<json> own = rows_of(findings, "scbench");
  if (own.empty()) return "";
  const std::vector<AnswerMean> scores = answer_means(own, panel, score);
  const std::vector<AnswerMean> changes = answer_means(own, panel, nll_change);
  Chart by_score;
  by_score.id = "chart-scbench-score";
  by_score.title = "Score";
  by_score.note = "Mean over all turns; higher and further left is better.";
  by_score.y = {.title = "score (share of the most possible)"};
  Chart by_nll;
  by_nll.id = "chart-scbench-nll";
  by_nll.title = "Likelihood of the right answer";
  by_nll.note = "Against everything kept, mean over all turns; lower and further left is better.";
  by_nll.y = {.title = "change of the answer's NLL (nats a token)"};
  by_nll.y_mark = Mark{0.0, "everything kept"};
  return "<section id=\"scbench\">\n<h2>Many questions, one context</h2>\n<p class=\"lead\">A context is "
         "compressed once and asked several questions in turn.</p>\n" +
         legend(policies.names()) + "<div class=\"charts\">\n" +
         answer_charts(scores, answer_means(rows_of(findings, "scbench", "floor"), panel, score), by_score,
                       policies) +
         answer_charts(changes, {}, by_nll, policies) + "</div>\n" + means_table(scores, changes, policies) +
         all_rows(own, policies) + "</section>\n";
}

}  // namespace evaluate
