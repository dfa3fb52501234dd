// The figures of all runs: a table for people, JSON for programs.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

namespace generate {

struct Run {
  std::string name;      // "zeromerge" (the policy's preset), "full", "llama.cpp", "llama.cpp-fastest"
  std::string policy;    // empty: without the plug-in
  std::string settings;  // in words
  bool fastest = false;
  nlohmann::json figures;  // by the names they have in the report; what was not measured is absent
};

struct Report {
  std::string model;             // speed and memory are measured on it
  std::string comparison_model;  // predictions are compared on it; empty: not compared
  std::size_t prompt_tokens = 0;
  std::size_t predicted_tokens = 0;
  std::int32_t ctx = 0;
  std::int32_t threads = 0;  // decode
  std::int32_t prompt_threads = 0;
  bool reclaim = false;
  std::vector<Run> runs;
};

void print_table(std::ostream& out, const Report& report);
nlohmann::json to_json(const Report& report);

}  // namespace generate
