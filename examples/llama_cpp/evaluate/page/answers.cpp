#include "evaluate/page/answers.hpp"

#include <algorithm>
#include <cctype>

#include "evaluate/page/html.hpp"

namespace evaluate {
namespace {

std::string as_id(const std::string& words) {
  std::string id = words;
  for (char& c : id)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
  return id;
}

Chart panel_chart(const std::vector<AnswerMean>& means, const std::string& panel, Chart chart,
                  const Policies& policies) {
  double most = 0.0;
  for (const AnswerMean& m : means) most = std::max(most, m.bytes);
  const ByteUnit unit(most);
  if (!panel.empty()) {
    chart.id += "-" + as_id(panel);
    chart.title += ", " + panel;
  }
  chart.x = {.title = "KV cache (" + unit.name + ", log scale)", .log = true};
  for (std::size_t look = 0; look < policies.names().size(); ++look) {
    Series series{look, {}};
    for (const AnswerMean& m : means)
      if (m.panel == panel && m.policy == policies.names()[look])
        series.points.push_back({m.bytes / unit.bytes, m.value, m.budget,
                                 m.policy + " at " + m.budget + ": " + significant(m.value) + ", " +
                                     fixed(m.bytes / unit.bytes, 2) + " " + unit.name});
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  return chart;
}

}  // namespace

std::vector<AnswerMean> answer_means(const std::vector<nlohmann::json>& rows, PanelOf panel,
                                     AnswerOf answer) {
  std::vector<AnswerMean> means;
  std::vector<double> counted;  // rows in each
  for (const nlohmann::json& row : rows) {
    const Answer a = answer(row);
    if (!(a.weight > 0.0)) continue;
    const AnswerMean key{
        .panel = panel(row), .policy = text_of(row, "policy"), .budget = text_of(row, "budget")};
    auto at = std::find_if(means.begin(), means.end(), [&](const AnswerMean& m) {
      return m.panel == key.panel && m.policy == key.policy && m.budget == key.budget;
    });
    if (at == means.end()) {
      at = means.insert(at, key);
      counted.push_back(0.0);
    }
    at->entries += number_of(row, "entries").value_or(0.0);
    at->bytes += number_of(row, "bytes").value_or(0.0);
    at->value += a.value * a.weight;
    at->weight += a.weight;
    ++counted[static_cast<std::size_t>(at - means.begin())];
  }
  for (std::size_t i = 0; i < means.size(); ++i) {
    means[i].entries /= counted[i];
    means[i].bytes /= counted[i];
    means[i].value /= means[i].weight;
  }
  return means;
}

std::string answer_charts(const std::vector<AnswerMean>& means, const std::vector<AnswerMean>& full,
                          const Chart& chart, const Policies& policies) {
  std::vector<std::string> panels;
  std::string out;
  for (const AnswerMean& m : means) {
    if (std::find(panels.begin(), panels.end(), m.panel) != panels.end()) continue;
    panels.push_back(m.panel);
    Chart own = panel_chart(means, m.panel, chart, policies);
    for (const AnswerMean& f : full)
      if (f.panel == m.panel) own.y_mark = Mark{f.value, "everything kept"};
    out += figure(own);
  }
  return out;
}

}  // namespace evaluate
