#include "evaluate/page/sections.hpp"

#include <algorithm>

#include "evaluate/page/chart.hpp"
#include "evaluate/page/html.hpp"

namespace evaluate {
namespace {

// A long spec breaks behind its commas.
std::string with_breaks(std::string html) {
  for (std::size_t at = 0; (at = html.find(',', at)) != std::string::npos; at += 6)
    html.insert(at + 1, "<wbr>");
  return html;
}

}  // namespace

Policies::Policies(const nlohmann::json& rows) {
  for (const nlohmann::json& row : rows) {
    if (!row.is_object()) continue;
    const std::string policy = text_of(row, "policy");
    if (std::find(names_.begin(), names_.end(), policy) == names_.end()) names_.push_back(policy);
  }
}

std::size_t Policies::look(const std::string& policy) const {
  return static_cast<std::size_t>(std::find(names_.begin(), names_.end(), policy) - names_.begin());
}

std::vector<nlohmann::json> rows_of(const nlohmann::json& findings, const std::string& task,
                                    const char* where) {
  std::vector<nlohmann::json> rows;
  if (!findings.is_object() || !findings.contains(where)) return rows;
  for (const nlohmann::json& row : findings[where]) {
    if (!row.is_object()) continue;
    const std::string own = text_of(row, "task");
    if ((own.empty() ? "continuation" : own) == task) rows.push_back(row);
  }
  return rows;
}

std::string policy_cell(const Policies& policies, const std::string& policy) {
  return "<span class=\"policy\"><svg class=\"key\" viewBox=\"0 0 14 14\" aria-hidden=\"true\">" +
         marker(policies.look(policy), 7, 7, "") + "</svg><code>" + with_breaks(escape(policy)) +
         "</code></span>";
}

ByteUnit::ByteUnit(double most_bytes) : name("KiB"), bytes(1024.0) {
  for (const char* larger : {"MiB", "GiB"})
    if (most_bytes >= bytes * 1024.0) {
      name = larger;
      bytes *= 1024.0;
    }
}

}  // namespace evaluate
