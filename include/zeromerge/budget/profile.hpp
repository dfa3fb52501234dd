// A head profile: for each layer and kv head its share of the entries (mean 1), measured once per model, at
// one or more budget levels. Read from a small text file:
//
//   zeromerge-profile 1
//   layers 30 kv_heads 3
//   budget 0.05              # a level: the share of the prompt that is kept on average
//   0.2 0.2 1.9              # one line per layer, one number per kv head
//   ...
//
// '#' starts a comment. Between levels the shares are interpolated; outside them the nearest level holds.
#pragma once

#include <cmath>
#include <cstddef>
#include <fstream>
#include <istream>
#include <sstream>
#include <string>
#include <vector>

#include "zeromerge/core/errors.hpp"

namespace zeromerge {

class HeadProfile {
 public:
  struct Level {
    double budget;
    std::vector<double> shares;  // [layers][kv_heads], scaled to mean 1
  };

  static HeadProfile load(const std::string& path) {
    std::ifstream file(path);
    if (!file) fail("profile: cannot read the file '", path, "'");
    return parse(file, path);
  }

  // `name` stands in messages.
  static HeadProfile parse(std::istream& text, const std::string& name) {
    std::istringstream words(without_comments(text));
    HeadProfile profile;
    int version = 0;
    expect(words, "zeromerge-profile", name);
    if (!(words >> version) || version != 1) fail("profile '", name, "': expected version 1, got ", version);
    expect(words, "layers", name);
    profile.layers_ = read_count(words, "layers", name);
    expect(words, "kv_heads", name);
    profile.kv_heads_ = read_count(words, "kv_heads", name);
    for (std::string word; words >> word;) {
      if (word != "budget") fail("profile '", name, "': expected 'budget', got '", word, "'");
      profile.levels_.push_back(read_level(words, profile.layers_ * profile.kv_heads_, name));
      const auto n = profile.levels_.size();
      if (n > 1 && !(profile.levels_[n - 2].budget < profile.levels_[n - 1].budget))
        fail("profile '", name, "': budget levels must rise, got ", profile.levels_[n - 1].budget, " after ",
             profile.levels_[n - 2].budget);
    }
    if (profile.levels_.empty()) fail("profile '", name, "': no 'budget' level found");
    return profile;
  }

  std::size_t layers() const noexcept { return layers_; }
  std::size_t kv_heads() const noexcept { return kv_heads_; }

  // Shares [layers][kv_heads] at this budget (a share of the prompt).
  std::vector<double> shares(double budget) const {
    if (budget <= levels_.front().budget) return levels_.front().shares;
    for (std::size_t i = 1; i < levels_.size(); ++i) {
      const Level& a = levels_[i - 1];
      const Level& b = levels_[i];
      if (budget > b.budget) continue;
      const double t = (budget - a.budget) / (b.budget - a.budget);
      std::vector<double> mixed(a.shares.size());
      for (std::size_t h = 0; h < mixed.size(); ++h) mixed[h] = (1.0 - t) * a.shares[h] + t * b.shares[h];
      return mixed;
    }
    return levels_.back().shares;
  }

 private:
  static std::string without_comments(std::istream& text) {
    std::string all;
    for (std::string line; std::getline(text, line);) all += line.substr(0, line.find('#')) + '\n';
    return all;
  }
  static void expect(std::istream& words, const char* wanted, const std::string& name) {
    std::string word;
    words >> word;
    if (word != wanted) fail("profile '", name, "': expected '", wanted, "', got '", word, "'");
  }
  static std::size_t read_count(std::istream& words, const char* what, const std::string& name) {
    long long n = 0;
    if (!(words >> n) || n < 1 || n > 1'000'000)
      fail("profile '", name, "': ", what, " must be a positive count");
    return static_cast<std::size_t>(n);
  }
  static Level read_level(std::istream& words, std::size_t heads, const std::string& name) {
    Level level{0.0, std::vector<double>(heads)};
    if (!(words >> level.budget) || !(level.budget > 0.0) || !(level.budget <= 1.0))
      fail("profile '", name, "': a budget level must be in (0, 1], got ", level.budget);
    double sum = 0.0;
    for (std::size_t h = 0; h < heads; ++h) {
      double& x = level.shares[h];
      if (!(words >> x) || !(x >= 0.0) || !(x < 1e9))
        fail("profile '", name, "': level ", level.budget, " needs ", heads, " shares of at least 0; number ",
             h + 1, " is missing or wrong");
      sum += x;
    }
    if (!(sum > 0.0)) fail("profile '", name, "': level ", level.budget, " has no share above 0");
    for (double& x : level.shares) x *= static_cast<double>(heads) / sum;
    return level;
  }

  std::size_t layers_ = 0;
  std::size_t kv_heads_ = 0;
  std::vector<Level> levels_;
};

}  // namespace zeromerge
