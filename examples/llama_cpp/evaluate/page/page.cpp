#include "evaluate/page/page.hpp"

#include <algorithm>
#include <map>

#include "evaluate/page/html.hpp"
#include "evaluate/page/sections.hpp"
#include "evaluate/page/style.hpp"

namespace evaluate {
namespace {

using nlohmann::json;

std::string fact(const std::string& name, const std::string& value) {
  return "<div><dt>" + escape(name) + "</dt><dd>" + escape(value) + "</dd></div>\n";
}

// Settings under the names that people give them; one that is unknown here under its own.
std::string facts(const json& findings, const json& rows, const Policies& policies) {
  const std::map<std::string, std::string> names = {{"model", "model"},
                                                    {"prompt_tokens", "prompt (tokens)"},
                                                    {"predict", "predicted (tokens)"},
                                                    {"equal", "budgets are shares of"}};
  const json settings = findings.value("settings", json::object());
  std::string out;
  for (const auto& [key, value] : settings.items()) {
    const auto name = names.find(key);
    out += fact(name != names.end() ? name->second : key, text_of({{key, value}}, key.c_str()));
  }
  std::vector<std::string> texts;
  for (const json& row : rows) texts.push_back(text_of(row, "text"));
  std::sort(texts.begin(), texts.end());
  const auto different = std::unique(texts.begin(), texts.end()) - texts.begin();
  out += fact("policies", std::to_string(policies.names().size())) +
         fact("texts", std::to_string(different)) + fact("rows", std::to_string(rows.size()));
  return "<dl>\n" + out + "</dl>\n";
}

std::string head(const json& findings) {
  const std::string model = text_of(findings.value("settings", json::object()), "model");
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
         "content=\"width=device-width, initial-scale=1\">\n<title>" +
         escape(model.empty() ? "zeromerge-evaluate" : "zeromerge-evaluate: " + model) + "</title>\n<style>" +
         kStyle + "</style>\n</head>\n";
}

}  // namespace

std::string page(const json& document) {
  const json findings = document.is_object() ? document : json::object();
  const json rows = findings.value("rows", json::array());
  const Policies policies(rows);
  std::string out =
      head(findings) +
      "<body>\n<main>\n<h1>What a smaller KV cache costs</h1>\n<p class=\"lead\">Quality against memory and "
      "speed, by policy and budget.</p>\n" +
      facts(findings, rows, policies) +
      "<p class=\"small\">Everything here, speed too, was measured with f16 weights: where the model is "
      "quantised, on a copy of it whose weights were expanded. Speeds compare the rows of this page; with "
      "quantised weights the model is faster. Points, cells and strips tell their figures under the "
      "pointer.</p>\n";
  if (rows.empty()) out += "<p class=\"empty\">There are no rows yet.</p>\n";
  out += continuation_section(findings, policies) + needles_section(findings, policies) +
         scbench_section(findings, policies) + heads_section(findings);
  if (const std::string command = text_of(findings, "command"); !command.empty())
    out += "<section id=\"command\">\n<h2>Command</h2>\n<pre>" + escape(command) + "</pre>\n</section>\n";
  return out + "</main>\n</body>\n</html>\n";
}

}  // namespace evaluate
