// Findings as one page of HTML with nothing to fetch: charts, tables, the map of heads.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace evaluate {

// Of the document that write_findings() writes. What the document lacks the page leaves out.
std::string page(const nlohmann::json& findings);

}  // namespace evaluate
