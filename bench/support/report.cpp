#include "support/report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

namespace bench {
namespace {

std::string text_of(const Json& row, const Column& column) {
  const auto value = row.find(column.key);
  if (value == row.end() || value->is_null()) return "-";
  if (value->is_boolean()) return value->get<bool>() ? "yes" : "no";
  if (value->is_string()) return value->get<std::string>();
  char text[64];
  std::snprintf(text, sizeof text, column.pattern.c_str(), value->get<double>());
  return text;
}

// Text to the left, figures to the right.
void print_rows(std::ostream& out, const std::vector<std::vector<std::string>>& rows,
                const std::vector<bool>& left) {
  std::vector<std::size_t> width(left.size(), 0);
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string padding(width[c] - row[c].size(), ' ');
      out << (c == 0 ? "" : "  ") << (left[c] ? row[c] + padding : padding + row[c]);
    }
    out << '\n';
  }
}

}  // namespace

void Report::print(std::ostream& out) const {
  out << name_ << " on " << machine_.value("cpu", "an unknown CPU") << '\n';
  for (const auto& [key, value] : machine_.items())
    if (key != "cpu")
      out << "  " << key << ": " << (value.is_string() ? value.get<std::string>() : value.dump()) << '\n';
  std::vector<std::vector<std::string>> cells(1);
  std::vector<bool> left;
  for (const Column& column : columns_) {
    cells[0].push_back(column.heading);
    left.push_back(!rows_.empty() && rows_[0].contains(column.key) && rows_[0][column.key].is_string());
  }
  for (const Json& row : rows_) {
    cells.emplace_back();
    for (const Column& column : columns_) cells.back().push_back(text_of(row, column));
  }
  print_rows(out, cells, left);
  for (const std::string& note : notes_) out << note << '\n';
  out.flush();
}

void Report::write(const std::string& path) const {
  if (path.empty()) return;
  std::ofstream file(path);
  const char* command = std::getenv("ZEROMERGE_BENCH_COMMAND");
  file << Json{{"bench", name_},
               {"command", command != nullptr ? command : "bench/run " + name_},
               {"machine", machine_},
               {"rows", rows_},
               {"notes", notes_}}
              .dump(1)
       << '\n';
  if (!file.flush()) throw std::runtime_error("--json: " + path + " cannot be written");
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return 0.5 * (*middle + *std::max_element(values.begin(), middle));
}

double geometric_mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += std::log(value);
  return std::exp(sum / static_cast<double>(values.size()));
}

}  // namespace bench
