#include "generate/report.hpp"

#include <algorithm>
#include <cstdio>

namespace generate {
namespace {

using nlohmann::json;
using Row = std::vector<std::string>;

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string number(const json& figures, const char* key, const char* pattern) {
  return figures.contains(key) ? format(pattern, figures[key].get<double>()) : "-";
}

std::string mebibytes(const json& figures, const char* key) {
  return figures.contains(key) ? format("%.2f MiB", figures[key].get<double>() / (1 << 20)) : "-";
}

Row cells(const Run& run, bool compared) {
  Row row{run.name,
          number(run.figures, "prefill_tokens_per_s", "%.1f"),
          number(run.figures, "decode_tokens_per_s", "%.2f"),
          mebibytes(run.figures, "kv_bytes"),
          mebibytes(run.figures, "kv_bytes_peak"),
          mebibytes(run.figures, "rss_bytes")};
  if (!compared) return row;
  row.push_back(number(run.figures, "kl_mean", "%.2e"));
  row.push_back(number(run.figures, "top1_agreement", "%.4f"));
  row.push_back(number(run.figures, "nll_delta", "%+.5f"));
  return row;
}

// The first column to the left, figures to the right.
void print_rows(std::ostream& out, const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    for (std::size_t column = 0; column < row.size(); ++column) {
      std::size_t width = 0;
      for (const Row& other : rows) width = std::max(width, other[column].size());
      const std::string padding(width - row[column].size(), ' ');
      out << (column == 0 ? row[column] + padding : "  " + padding + row[column]);
    }
    out << '\n';
  }
}

void print_notes(std::ostream& out, const Report& report) {
  out << '\n'
      << report.prompt_tokens << " prompt tokens, " << report.predicted_tokens << " predicted, context "
      << report.ctx << ", " << report.threads << " decoding threads, " << report.prompt_threads
      << " for the prompt\n";
  for (const Run& run : report.runs) {
    out << run.name << ": " << run.settings;
    if (run.figures.contains("engine_bytes")) {
      out << "; llama.cpp's own cells keep " << mebibytes(run.figures, "engine_bytes") << " resident";
    }
    out << '\n';
  }
  out << "speed and memory (resident: at the end, the mapped model included): " << report.model << '\n';
  if (report.comparison_model.empty()) return;
  out << "KL, top-1, NLL against plain llama.cpp without flash attention (K and V f16), along the text it "
         "predicts, "
      << report.predicted_tokens << " positions: " << report.comparison_model
      << (report.comparison_model == report.model ? ", whose weights are f16 or f32 already\n"
                                                  : ", the same model with its weights expanded to f16\n");
}

json run_to_json(const Run& run) {
  json entry{{"name", run.name},
             {"policy", run.policy.empty() ? json() : json(run.policy)},
             {"settings", run.settings}};
  for (const char* key :
       {"prefill_tokens_per_s", "decode_tokens_per_s", "decode_step_ms_median", "kv_bytes", "kv_bytes_peak",
        "engine_bytes", "rss_bytes", "rss_peak_bytes", "kl_mean", "top1_agreement", "nll_delta", "text"}) {
    entry[key] = run.figures.contains(key) ? run.figures[key] : json();
  }
  return entry;
}

}  // namespace

void print_table(std::ostream& out, const Report& report) {
  const bool compared = !report.comparison_model.empty();
  Row head{"run", "prefill tok/s", "decode tok/s", "KV held", "KV peak", "resident"};
  if (compared) head.insert(head.end(), {"mean KL", "top-1", "NLL diff"});
  std::vector<Row> rows{head};
  for (const Run& run : report.runs) rows.push_back(cells(run, compared));
  print_rows(out, rows);
  print_notes(out, report);
}

json to_json(const Report& report) {
  json runs = json::array();
  for (const Run& run : report.runs) runs.push_back(run_to_json(run));
  return {{"model", report.model},
          {"comparison_model", report.comparison_model.empty() ? json() : json(report.comparison_model)},
          {"prompt_tokens", report.prompt_tokens},
          {"predicted_tokens", report.predicted_tokens},
          {"ctx", report.ctx},
          {"threads", report.threads},
          {"prompt_threads", report.prompt_threads},
          {"reclaim", report.reclaim},
          {"runs", runs}};
}

}  // namespace generate
