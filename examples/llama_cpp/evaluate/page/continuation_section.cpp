// How far predictions move along a text, against bytes and speed.
#include <algorithm>
#include <cmath>
#include <limits>

#include "evaluate/page/chart.hpp"
#include "evaluate/page/html.hpp"
#include "evaluate/page/ratios.hpp"
#include "evaluate/page/sections.hpp"
#include "evaluate/summary.hpp"

namespace evaluate {
namespace {

using nlohmann::json;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

Row to_row(const json& j) {
  Row row;
  row.text = text_of(j, "text");
  row.policy = text_of(j, "policy");
  row.budget = text_of(j, "budget");
  row.entries = static_cast<std::size_t>(number_of(j, "entries").value_or(0.0));
  row.bytes = static_cast<std::size_t>(number_of(j, "bytes").value_or(0.0));
  row.kl_mean = number_of(j, "kl_mean").value_or(kNone);
  row.top1_agreement = number_of(j, "top1_agreement").value_or(kNone);
  row.nll_delta = number_of(j, "nll_delta").value_or(kNone);
  row.prompt_tokens_per_second = number_of(j, "prompt_tokens_per_second").value_or(kNone);
  row.decode_tokens_per_second = number_of(j, "decode_tokens_per_second").value_or(kNone);
  return row;
}

// The mean over rows that have the figure.
template <class Rows, class Of>
double mean(const Rows& rows, Of of) {
  double sum = 0.0, n = 0.0;
  for (const Row& row : rows)
    if (const double value = of(row); std::isfinite(value)) {
      sum += value;
      ++n;
    }
  return n > 0.0 ? sum / n : kNone;
}

// Everything that the section tells, read once.
struct Material {
  std::vector<Row> rows, floor;
  std::vector<Summary> summaries;
  double floor_kl, full_bytes, full_decode, full_prompt;

  Material(const json& findings, const std::vector<json>& own) {
    for (const json& j : own) rows.push_back(to_row(j));
    for (const json& j : rows_of(findings, "continuation", "floor")) floor.push_back(to_row(j));
    summaries = summarise(rows);
    floor_kl = mean(floor, [](const Row& r) { return r.kl_mean; });
    full_bytes = mean(floor, [](const Row& r) { return static_cast<double>(r.bytes); });
    full_prompt = mean(floor, [](const Row& r) { return r.prompt_tokens_per_second; });
    full_decode = mean(floor, [](const Row& r) { return r.decode_tokens_per_second; });
  }

  double of_run(const Summary& s, double Row::*figure) const {
    std::vector<Row> run;
    for (const Row& row : rows)
      if (row.policy == s.policy && row.budget == s.budget) run.push_back(row);
    return mean(run, [&](const Row& r) { return r.*figure; });
  }
  double most_bytes() const {
    double most = 0.0;
    for (const Summary& s : summaries) most = std::max(most, s.bytes);
    return most;
  }
};

Series& series_of(Chart& chart, std::size_t look) {
  for (Series& series : chart.series)
    if (series.look == look) return series;
  return chart.series.emplace_back(Series{look, {}});
}

// The floor as a line where it is near, else in words: a line far below would press the points together.
void add_floor(Chart& chart, const Material& m) {
  if (!std::isfinite(m.floor_kl)) return;
  double least = std::numeric_limits<double>::max();
  for (const Summary& s : m.summaries) least = s.kl > 0.0 ? std::min(least, s.kl) : least;
  if (m.floor_kl > least / 20.0)
    chart.y_mark = Mark{m.floor_kl, "noise floor"};
  else
    chart.note += " The noise floor, " + significant(m.floor_kl, 2) + ", is below the chart.";
}

std::string bytes_chart(const Material& m, const Policies& policies) {
  const ByteUnit unit(m.most_bytes());
  Chart chart;
  chart.id = "chart-kl-bytes";
  chart.title = "Quality against memory";
  chart.note = "Means over texts, a point per budget; lower and further left is better.";
  chart.x = {.title = "KV cache (" + unit.name + ", log scale)", .log = true};
  chart.y = {.title = "mean KL divergence (nats, log scale)", .log = true};
  for (const Summary& s : m.summaries)
    series_of(chart, policies.look(s.policy))
        .points.push_back({s.bytes / unit.bytes, s.kl, s.budget,
                           s.policy + " at " + s.budget + ": mean KL " + significant(s.kl) + ", " +
                               fixed(s.bytes / unit.bytes, 2) + " " + unit.name});
  add_floor(chart, m);
  if (m.full_bytes > 0.0 && m.full_bytes < 4.0 * m.most_bytes())
    chart.x_mark = Mark{m.full_bytes / unit.bytes, "everything kept"};
  else if (m.full_bytes > 0.0)
    chart.note += " With everything kept the cache takes " + fixed(m.full_bytes / unit.bytes, 1) + " " +
                  unit.name + ".";
  return figure(chart);
}

std::string speed_chart(const Material& m, const Policies& policies) {
  Chart chart;
  chart.id = "chart-kl-speed";
  chart.title = "Quality against decode speed";
  chart.note = "One point per policy and budget; lower and further right is better.";
  chart.x = {.title = "decode speed, f16 weights (tokens/s)"};
  chart.y = {.title = "mean KL divergence (nats, log scale)", .log = true};
  chart.connected = false;
  for (const Summary& s : m.summaries) {
    const double speed = m.of_run(s, &Row::decode_tokens_per_second);
    if (!std::isfinite(speed)) continue;
    series_of(chart, policies.look(s.policy))
        .points.push_back({speed, s.kl, s.budget,
                           s.policy + " at " + s.budget + ": " + fixed(speed, 1) + " tokens/s, mean KL " +
                               significant(s.kl)});
  }
  add_floor(chart, m);
  if (m.full_decode > 0.0) chart.x_mark = Mark{m.full_decode, "everything kept"};
  return figure(chart);
}

std::string means_table(const Material& m, const Policies& policies) {
  const ByteUnit unit(m.most_bytes());
  const std::vector<Column> columns = {
      {"policy", true}, {"budget"}, {"texts"},    {"entries/head"}, {"KV " + unit.name}, {"of full"},
      {"mean KL"},      {"top-1"},  {"NLL diff"}, {"prompt tok/s"}, {"decode tok/s"}};
  std::vector<std::vector<std::string>> rows;
  for (const Summary& s : m.summaries)
    rows.push_back({policy_cell(policies, s.policy), escape(s.budget), std::to_string(s.texts),
                    count(s.entries), fixed(s.bytes / unit.bytes, 2),
                    m.full_bytes > 0.0 ? fixed(100.0 * s.bytes / m.full_bytes, 1) + "%" : "–",
                    significant(s.kl), fixed(s.top1, 3), with_sign(s.nll, 4),
                    fixed(m.of_run(s, &Row::prompt_tokens_per_second), 0),
                    fixed(m.of_run(s, &Row::decode_tokens_per_second), 1)});
  if (!m.floor.empty())
    rows.push_back({"everything kept (noise floor)", "100%", std::to_string(m.floor.size()),
                    count(mean(m.floor, [](const Row& r) { return static_cast<double>(r.entries); })),
                    fixed(m.full_bytes / unit.bytes, 2), "100%", significant(m.floor_kl, 2),
                    fixed(mean(m.floor, [](const Row& r) { return r.top1_agreement; }), 3),
                    with_sign(mean(m.floor, [](const Row& r) { return r.nll_delta; }), 4),
                    fixed(m.full_prompt, 0), fixed(m.full_decode, 1)});
  return table(columns, rows);
}

std::string all_rows(const Material& m, const Policies& policies) {
  const std::vector<Column> columns = {{"text", true},   {"policy", true}, {"budget"}, {"entries/head"},
                                       {"bytes"},        {"mean KL"},      {"top-1"},  {"NLL diff"},
                                       {"prompt tok/s"}, {"decode tok/s"}};
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const Row& r, const std::string& policy) {
    rows.push_back({escape(r.text), policy, escape(r.budget), count(static_cast<double>(r.entries)),
                    count(static_cast<double>(r.bytes)), significant(r.kl_mean), fixed(r.top1_agreement, 3),
                    with_sign(r.nll_delta, 4), fixed(r.prompt_tokens_per_second, 0),
                    fixed(r.decode_tokens_per_second, 1)});
  };
  for (const Row& r : m.rows) add(r, policy_cell(policies, r.policy));
  for (const Row& r : m.floor) add(r, "everything kept (noise floor)");
  return "<details><summary>All " + std::to_string(rows.size()) + " rows, text by text</summary>\n" +
         table(columns, rows) + "</details>\n";
}

}  // namespace

std::string continuation_section(const json& findings, const Policies& policies) {
  const std::vector<json> own = rows_of(findings, "continuation");
  if (own.empty()) return "";
  const Material m(findings, own);
  std::string out = "<section id=\"continuation\">\n<h2>Predictions along a text</h2>\n";
  out +=
      "<p class=\"lead\">Behind each prompt the text goes on and is predicted token by token. Every "
      "prediction "
      "is compared with that of llama.cpp with nothing left out.</p>\n";
  out += legend(policies.names()) + "<div class=\"charts\">\n" + bytes_chart(m, policies) +
         speed_chart(m, policies) + "</div>\n";
  out += "<h3>Means over texts</h3>\n" + means_table(m, policies);
  return out + ratios(m.summaries, policies) + all_rows(m, policies) + "</section>\n";
}

}  // namespace evaluate
