// Rows of tasks that ask questions, put together: a weighted mean per panel, policy and budget.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "evaluate/page/chart.hpp"
#include "evaluate/page/sections.hpp"

namespace evaluate {

// What one row says of one figure.
struct Answer {
  double value = 0.0;
  double weight = 0.0;  // answers behind it; none: the row says nothing
};

struct AnswerMean {
  std::string panel, policy, budget;
  double entries = 0.0, bytes = 0.0;  // means over rows
  double value = 0.0;                 // weighted
  double weight = 0.0;                // of all rows
};

using PanelOf = std::string (*)(const nlohmann::json& row);
using AnswerOf = Answer (*)(const nlohmann::json& row);

// In the order of the rows; what no row says anything about is left out.
std::vector<AnswerMean> answer_means(const std::vector<nlohmann::json>& rows, PanelOf panel, AnswerOf answer);

// A chart per panel against bytes, with a line where `full`, the means of the full cache's rows, has one for
// it. `chart` holds what the charts have in common; its id and title are continued by the panel's name.
std::string answer_charts(const std::vector<AnswerMean>& means, const std::vector<AnswerMean>& full,
                          const Chart& chart, const Policies& policies);

}  // namespace evaluate
