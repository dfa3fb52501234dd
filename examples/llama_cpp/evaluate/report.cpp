#include "evaluate/report.hpp"

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "evaluate/page/page.hpp"
#include "generate/error.hpp"

namespace evaluate {
namespace {

using nlohmann::json;

// What rows of one file have in common.
json settings(const Options& options) {
  return {{"model", options.model.filename().string()},
          {"prompt_tokens", options.prompt_tokens},
          {"predict", options.predict},
          {"equal", options.equal_bytes ? "bytes" : "entries"}};
}

json to_json(const Row& row) {
  json j = {{"task", "continuation"},    {"text", row.text},
            {"policy", row.policy},      {"budget", row.budget},
            {"entries", row.entries},    {"bytes", row.bytes},
            {"kl_mean", row.kl_mean},    {"top1_agreement", row.top1_agreement},
            {"nll_delta", row.nll_delta}};
  if (row.prompt_tokens_per_second > 0.0) j["prompt_tokens_per_second"] = row.prompt_tokens_per_second;
  if (row.decode_tokens_per_second > 0.0) j["decode_tokens_per_second"] = row.decode_tokens_per_second;
  return j;
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

json document(const Options& options, const Findings& findings) {
  json rows = json::array(), floor = json::array();
  for (const Row& row : findings.rows) rows.push_back(to_json(row));
  for (const Row& row : findings.floor) floor.push_back(to_json(row));
  json all = {
      {"settings", settings(options)}, {"command", options.command}, {"rows", rows}, {"floor", floor}};
  if (!findings.heads.is_null()) all["heads"] = findings.heads;
  return all;
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
  const std::filesystem::path& path = options.json;
  if (path.empty() || !std::filesystem::exists(path) || std::filesystem::is_empty(path)) return {};
  const std::string remedy = "; give another --json, or remove the file to measure anew";
  try {
    std::ifstream stream(path);
    const json j = json::parse(stream);
    if (j.at("settings") != settings(options))
      throw generate::UsageError("--json: " + path.string() + " holds rows measured with " +
                                 j.at("settings").dump() + remedy);
    Findings findings;
    for (const json& row : j.at("rows")) findings.rows.push_back(to_row(row));
    for (const json& row : j.at("floor")) findings.floor.push_back(to_row(row));
    findings.heads = j.value("heads", json());
    return findings;
  } catch (const json::exception& error) {
    throw generate::UsageError("--json: " + path.string() + " is no file of this program's (" + error.what() +
                               ")" + remedy);
  }
}

void write_findings(const Options& options, const Findings& findings) {
  if (options.json.empty() && options.html.empty()) return;
  const json all = document(options, findings);
  if (!options.json.empty()) write_file("--json", options.json, all.dump(2) + '\n');
  if (!options.html.empty()) write_file("--html", options.html, page(all));
}

void print_table(std::ostream& out, const Options& options, const Findings& findings) {
  line(out, "%-48s %6s %8s %10s %10s %7s %9s  %s", "policy", "budget", "entries", "KV MiB", "mean KL",
       "top-1", "NLL diff", "KL against the first policy");
  for (const Summary& s : summarise(findings.rows))
    line(out, "%-48s %6s %8.0f %10.2f %10.2e %7.4f %+9.4f  %.2fx [%.2f, %.2f]", s.policy.c_str(),
         s.budget.c_str(), s.entries, s.bytes / 1048576.0, s.kl, s.top1, s.nll, s.ratio.value, s.ratio.low,
         s.ratio.high);
  double floor = 0.0;
  for (const Row& row : findings.floor) floor += row.kl_mean / static_cast<double>(findings.floor.size());
  line(out,
       "%zu texts, %d tokens of prompt, %d predicted; equal %s; means over texts, the last column a paired "
       "geometric",
       findings.floor.size(), options.prompt_tokens, options.predict,
       options.equal_bytes ? "bytes" : "entries");
  line(out,
       "mean with two standard errors. With everything kept the mean KL is %.1e: what is below that is "
       "rounding.",
       floor);
}

}  // namespace evaluate
