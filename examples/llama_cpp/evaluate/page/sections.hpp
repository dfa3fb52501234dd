// The page's sections, each from the findings' document; empty where it has no rows for one.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace evaluate {

// Policies in the order in which rows bring them: each has the same colour and shape all over the page.
class Policies {
 public:
  explicit Policies(const nlohmann::json& rows);
  std::size_t look(const std::string& policy) const;
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::string> names_;
};

// Rows of one task; a row that names none is of the first, "continuation". `where` is "rows", or "floor" for
// those of the full cache.
std::vector<nlohmann::json> rows_of(const nlohmann::json& findings, const std::string& task,
                                    const char* where = "rows");

// A policy's name behind its mark, for a table.
std::string policy_cell(const Policies& policies, const std::string& policy);

// The unit in which these bytes are told: its name, and how many bytes it is.
struct ByteUnit {
  explicit ByteUnit(double most_bytes);
  std::string name;
  double bytes;
};

std::string continuation_section(const nlohmann::json& findings, const Policies& policies);
std::string needles_section(const nlohmann::json& findings, const Policies& policies);
std::string scbench_section(const nlohmann::json& findings, const Policies& policies);
std::string heads_section(const nlohmann::json& findings);

}  // namespace evaluate
