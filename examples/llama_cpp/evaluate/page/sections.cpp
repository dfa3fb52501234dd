#include "evaluate/page/sections.hpp"

#include <algorithm>

#include "evaluate/page/chart.hpp"
#include "evaluate/page/html.hpp"

namespace evaluate {

Policies::Policies(const nlohmann::json& rows) {
  for (const nlohmann::json& row : rows) {
    const std::string policy = text_of(row, "policy");
    if (std::find(names_.begin(), names_.end(), policy) == names_.end()) names_.push_back(policy);
  }
}

std::size_t Policies::look(const std::string& policy) const {
  return static_cast<std::size_t>(std::find(names_.begin(), names_.end(), policy) - names_.begin());
}

std::vector<nlohmann::json> rows_of(const nlohmann::json& findings, const std::string& task) {
  std::vector<nlohmann::json> rows;
  if (!findings.is_object() || !findings.contains("rows")) return rows;
  for (const nlohmann::json& row : findings["rows"]) {
    const std::string own = text_of(row, "task");
    if ((own.empty() ? "continuation" : own) == task) rows.push_back(row);
  }
  return rows;
}

std::string policy_cell(const Policies& policies, const std::string& policy) {
  return "<svg class=\"key\" viewBox=\"0 0 28 14\" aria-hidden=\"true\">" +
         marker(policies.look(policy), 14, 7, "") + "</svg><code>" + escape(policy) + "</code>";
}

ByteUnit::ByteUnit(double most_bytes) : name("KiB"), bytes(1024.0) {
  for (const char* larger : {"MiB", "GiB"})
    if (most_bytes >= bytes * 1024.0) {
      name = larger;
      bytes *= 1024.0;
    }
}

}  // namespace evaluate
