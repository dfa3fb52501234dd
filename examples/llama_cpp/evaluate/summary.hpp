// Rows of many texts put together: means, and paired geometric ratios with their uncertainty.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "evaluate/findings.hpp"

namespace evaluate {

struct Row {
  std::string text;
  std::string policy;  // as it was asked for, without a budget
  std::string budget;
  std::size_t entries =
      0;  // a kv head, on average, when the prompt has ended and the text has been predicted
  std::size_t bytes = 0;
  double kl_mean = 0.0;
  double top1_agreement = 0.0;
  double nll_delta = 0.0;
  double prompt_tokens_per_second = 0.0;  // compressing it counted
  double decode_tokens_per_second = 0.0;  // 0: not measured
};

// exp of the mean of log(x / y) over pairs; the bounds are two standard errors of that mean away.
struct Ratio {
  double value = 1.0;
  double low = 1.0;
  double high = 1.0;
};

inline Ratio paired_ratio(std::span<const double> x, std::span<const double> y) {
  const auto n = static_cast<double>(x.size());
  double mean = 0.0, square = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) mean += std::log(x[i] / y[i]) / n;
  for (std::size_t i = 0; i < x.size(); ++i) square += std::pow(std::log(x[i] / y[i]) - mean, 2.0);
  const double error = x.size() > 1 ? std::sqrt(square / (n - 1.0) / n) : 0.0;
  return {std::exp(mean), std::exp(mean - 2.0 * error), std::exp(mean + 2.0 * error)};
}

struct Summary {
  std::string policy;
  std::string budget;
  std::size_t texts = 0;
  double entries = 0.0, bytes = 0.0, kl = 0.0, top1 = 0.0, nll = 0.0;  // means
  Ratio ratio;  // of the KL to that of the first policy at the same budget, over the texts that both have
};

// One for each policy and budget, in the order of the rows; what the ratio is one to is the first row's
// policy.
inline std::vector<Summary> summarise(std::span<const Row> rows) {
  std::vector<Summary> all;
  const auto find = [&](const Row& row) -> Summary& {
    for (Summary& s : all)
      if (s.policy == row.policy && s.budget == row.budget) return s;
    return all.emplace_back(Summary{.policy = row.policy, .budget = row.budget, .ratio = {}});
  };
  for (const Row& row : rows) {
    Summary& s = find(row);
    ++s.texts;
    s.entries += static_cast<double>(row.entries);
    s.bytes += static_cast<double>(row.bytes);
    s.kl += row.kl_mean;
    s.top1 += row.top1_agreement;
    s.nll += row.nll_delta;
  }
  for (Summary& s : all) {
    for (double* x : {&s.entries, &s.bytes, &s.kl, &s.top1, &s.nll}) *x /= static_cast<double>(s.texts);
    std::map<std::string, double> first;
    for (const Row& row : rows)
      if (row.policy == rows.front().policy && row.budget == s.budget) first[row.text] = row.kl_mean;
    std::vector<double> x, y;
    for (const Row& row : rows)
      if (row.policy == s.policy && row.budget == s.budget && first.contains(row.text)) {
        x.push_back(row.kl_mean);
        y.push_back(first[row.text]);
      }
    if (!x.empty()) s.ratio = paired_ratio(x, y);
  }
  return all;
}

// Answers of all texts put together.
struct NeedleSummary {
  std::string policy;
  std::string budget;
  double entries = 0.0, bytes = 0.0;  // means
  std::size_t texts = 0, right = 0, counted = 0;
};

// One for each policy and budget of the rows that match `key`, in their order.
inline std::vector<NeedleSummary> summarise_needles(const nlohmann::json& rows, const nlohmann::json& key) {
  std::vector<NeedleSummary> all;
  for (const nlohmann::json& row : rows) {
    if (!matches(row, key)) continue;
    auto at = std::find_if(all.begin(), all.end(), [&](const NeedleSummary& s) {
      return s.policy == row["policy"] && s.budget == row["budget"];
    });
    if (at == all.end()) {
      all.push_back({.policy = row["policy"], .budget = row["budget"]});
      at = all.end() - 1;
    }
    ++at->texts;
    at->entries += row["entries"].get<double>();
    at->bytes += row["bytes"].get<double>();
    at->right += row["right"].get<std::size_t>();
    at->counted += row["counted"].get<std::size_t>();
  }
  for (NeedleSummary& s : all) {
    s.entries /= static_cast<double>(s.texts);
    s.bytes /= static_cast<double>(s.texts);
  }
  return all;
}

}  // namespace evaluate
