// What every task does with the model: check what was asked for, turn texts into tokens, run jobs on the copy
// with f16 weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "evaluate/options.hpp"
#include "generate/job.hpp"
#include "generate/process.hpp"

namespace evaluate {

using Tokens = std::vector<std::int32_t>;

// A text and its tokens, `size` of each in bytes.
struct Tokenized {
  std::string text;
  Tokens tokens;
  std::vector<std::size_t> sizes;
};

class Runner {
 public:
  // Throws UsageError if the model cannot be read or a policy is refused.
  explicit Runner(const Options& options);

  // Makes the copy with f16 weights, if there is none; jobs from here on run on it.
  void expand();
  std::vector<Tokenized> tokenize(const std::vector<std::string>& texts);
  // Throws UsageError if the file cannot be read.
  Tokenized read(const std::filesystem::path& text);
  // What a whole text starts with.
  const Tokens& begin() const { return begin_; }

  // `policy` with the entries of `budget`.
  std::string spec(const std::string& policy, const std::string& budget) const;
  // A job with room for this many tokens.
  generate::Job job(generate::Task task, std::size_t tokens) const;
  nlohmann::json run(const generate::Job& job) { return generate::run_job(job, options_.plugin, scratch_); }
  std::string scratch_file(const std::string& name) const { return scratch_.file(name).string(); }

 private:
  const Options& options_;
  generate::Scratch scratch_;
  std::string model_;
  Tokens begin_;
  bool exact_weights_ = false;
  std::size_t head_dim_ = 0;
};

// "[3/12] " of rows that are counted as they are come to.
class Counter {
 public:
  explicit Counter(std::size_t all) : all_(all) {}
  std::string next() { return "[" + std::to_string(++number_) + "/" + std::to_string(all_) + "] "; }

 private:
  std::size_t all_;
  std::size_t number_ = 0;
};

}  // namespace evaluate
