// What a bench found: a table for a person and JSON for a program, from the same rows.
//   {"bench": name, "command": text, "machine": {…}, "rows": [{column: value, …}, …], "notes": […]}
// The command is what bench/run says it was called with (ZEROMERGE_BENCH_COMMAND).
#pragma once

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

namespace bench {

using Json = nlohmann::ordered_json;

// A column of the table: the row's key, its heading, and a printf pattern for numbers ("%.2f"); other values
// print as they are, missing and null ones as "-".
struct Column {
  std::string key;
  std::string heading;
  std::string pattern = "%.0f";
};

class Report {
 public:
  Report(std::string name, std::vector<Column> columns)
      : name_(std::move(name)), columns_(std::move(columns)) {}

  Json& machine() { return machine_; }
  void add(Json row) { rows_.push_back(std::move(row)); }
  const std::vector<Json>& rows() const { return rows_; }
  void note(std::string text) { notes_.push_back(std::move(text)); }

  void print(std::ostream& out) const;
  // Does nothing without a path. Throws std::runtime_error if the file cannot be written.
  void write(const std::string& path) const;

 private:
  std::string name_;
  std::vector<Column> columns_;
  Json machine_ = Json::object();
  std::vector<Json> rows_;
  std::vector<std::string> notes_;
};

// Of an unsorted list that is not empty.
double median(std::vector<double> values);
double geometric_mean(const std::vector<double>& values);

}  // namespace bench
