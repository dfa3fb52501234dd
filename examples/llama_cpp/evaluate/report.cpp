#include "evaluate/report.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <ostream>
#include <vector>

#include "evaluate/page/page.hpp"
#include "evaluate/summary.hpp"
#include "generate/error.hpp"

namespace evaluate {
namespace {

using nlohmann::json;

// What all rows of one file have in common, whatever their task.
json settings(const Options& options) {
  return {{"model", options.model.filename().string()},
          {"prompt_tokens", options.prompt_tokens},
          {"predict", options.predict},
          {"equal", options.equal_bytes ? "bytes held" : "entries"}};
}

// And what those of the tasks that draw have.
json drawn_settings(const Options& options) {
  if (options.task == Measure::continuation) return json::object();
  return {{"seeds", options.seeds}};
}

Row to_row(const json& j) {
  return {.text = j.at("text"),
          .policy = j.at("policy"),
          .budget = j.at("budget"),
          .entries = j.at("entries"),
          .bytes = j.at("bytes"),
          .kl_mean = j.at("kl_mean"),
          .top1_agreement = j.at("top1_agreement"),
          .nll_delta = j.at("nll_delta"),
          .prompt_tokens_per_second = j.value("prompt_tokens_per_second", 0.0),
          .decode_tokens_per_second = j.value("decode_tokens_per_second", 0.0)};
}

// A file that is there is replaced whole.
void write_file(const char* option, const std::filesystem::path& path, const std::string& content) {
  const std::filesystem::path partial = path.string() + ".partial";
  if (!(std::ofstream(partial) << content << std::flush))
    throw std::runtime_error(option + (": " + partial.string()) + " cannot be written");
  std::filesystem::rename(partial, path);
}

template <class... Values>
void line(std::ostream& out, const char* format, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  out << text << '\n';
}

}  // namespace

Findings read_findings(const Options& options) {
  Findings findings;
  findings.settings = settings(options);
  findings.settings.update(drawn_settings(options));
  const std::filesystem::path& path = options.json;
  if (path.empty() || !std::filesystem::exists(path) || std::filesystem::is_empty(path)) return findings;
  const std::string remedy = "; give another --json, or remove the file to measure anew";
  try {
    std::ifstream stream(path);
    const json j = json::parse(stream);
    const json& stored = j.at("settings");
    const json drawn = drawn_settings(options);
    const bool same_draws = !drawn.contains("seeds") || !stored.contains("seeds") || matches(stored, drawn);
    if (!matches(stored, settings(options)) || !same_draws)
      throw generate::UsageError("--json: " + path.string() + " holds rows measured with " + stored.dump() +
                                 remedy);
    findings.settings.update(stored);
    findings.rows = j.at("rows").get<json::array_t>();
    findings.floor = j.at("floor").get<json::array_t>();
    for (const json* rows : {&findings.rows, &findings.floor})
      for (const json& row : *rows) (void)row.at("task").get<std::string>();
    findings.heads = j.value("heads", json());
    return findings;
  } catch (const json::exception& error) {
    throw generate::UsageError("--json: " + path.string() + " is no file of this program's (" + error.what() +
                               ")" + remedy);
  }
}

json document(const Options& options, const Findings& findings) {
  json all = {{"settings", findings.settings},
              {"command", options.command},
              {"rows", findings.rows},
              {"floor", findings.floor}};
  if (!findings.heads.is_null()) all["heads"] = findings.heads;
  return all;
}

void write_findings(const Options& options, const Findings& findings) {
  if (options.json.empty() && options.html.empty()) return;
  const json all = document(options, findings);
  if (!options.json.empty()) write_file("--json", options.json, all.dump(2) + '\n');
  if (!options.html.empty()) write_file("--html", options.html, page(all));
}

namespace {

void print_continuation(std::ostream& out, const Options& options, const Findings& findings) {
  line(out, "%-48s %6s %8s %10s %10s %7s %9s  %s", "policy", "budget", "entries", "KV MiB", "mean KL",
       "top-1", "NLL diff", "KL against the first policy");
  std::vector<Row> rows;
  for (const json& row : findings.rows)
    if (row["task"] == "continuation") rows.push_back(to_row(row));
  for (const Summary& s : summarise(rows))
    line(out, "%-48s %6s %8.0f %10.2f %10.2e %7.4f %+9.4f  %.2fx [%.2f, %.2f]", s.policy.c_str(),
         s.budget.c_str(), s.entries, s.bytes / 1048576.0, s.kl, s.top1, s.nll, s.ratio.value, s.ratio.low,
         s.ratio.high);
  double floor = 0.0;
  std::size_t texts = 0;
  for (const json& row : findings.floor)
    if (row["task"] == "continuation") {
      floor += row["kl_mean"].get<double>();
      ++texts;
    }
  line(out,
       "%zu texts, %d tokens of prompt, %d predicted; equal %s; means over texts, the last column a paired "
       "geometric",
       texts, options.prompt_tokens, options.predict, options.equal_bytes ? "bytes" : "entries");
  line(out,
       "mean with two standard errors. With everything kept the mean KL is %.1e: what is below that is "
       "rounding.",
       floor / static_cast<double>(texts));
}

void print_needles(std::ostream& out, const Options& options, const Findings& findings) {
  const std::string asked = options.asked_in ? "in" : "after";
  const json key = {{"task", "needles"}, {"asked", asked}};
  line(out, "%-48s %6s %8s %10s %9s %7s", "policy", "budget", "entries", "KV MiB", "right", "share");
  for (const NeedleSummary& s : summarise_needles(findings.rows, key))
    line(out, "%-48s %6s %8.0f %10.2f %4zu/%-4zu %6.1f%%", s.policy.c_str(), s.budget.c_str(), s.entries,
         s.bytes / 1048576.0, s.right, s.counted,
         100.0 * static_cast<double>(s.right) / static_cast<double>(std::max<std::size_t>(s.counted, 1)));
  for (const NeedleSummary& s : summarise_needles(findings.floor, key))
    line(out, "The full cache answers %zu of %zu questions right; only those count. Asked %s.", s.right,
         s.counted, asked == "in" ? "in the prompt" : "after the prompt was compressed");
}

void print_scbench(std::ostream& out, const Findings& findings) {
  line(out, "%-14s %-20s %-36s %6s %8s %6s %8s %8s %6s", "mode", "kind", "policy", "budget", "entries",
       "turn", "score", "NLL", "more");
  for (const json* rows : {&findings.floor, &findings.rows})
    for (const json& row : *rows) {
      if (row["task"] != "scbench") continue;
      const auto text = [&](const char* name) { return row[name].get<std::string>(); };
      const double nll = row["answer_nll"], full = row["answer_nll_full"];
      line(out, "%-14s %-20s %-36s %6s %8zu %6s %8.3f %8.3f %+6.2f", text("mode").c_str(),
           text("kind").c_str(), text("policy").c_str(), text("budget").c_str(),
           row["entries"].get<std::size_t>(), text("turn").c_str(), row["score"].get<double>(), nll,
           nll - full);
    }
  line(out,
       "Scores are means over answers. NLL: of a token of the right answer, and how much more it is than the "
       "full cache's.");
}

}  // namespace

void print_table(std::ostream& out, const Options& options, const Findings& findings) {
  if (options.task == Measure::continuation) print_continuation(out, options, findings);
  if (options.task == Measure::needles) print_needles(out, options, findings);
  if (options.task == Measure::scbench) print_scbench(out, findings);
}

}  // namespace evaluate
