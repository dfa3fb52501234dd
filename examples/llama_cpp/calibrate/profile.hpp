// A head profile, measured: each text is read twice (KVzip), the entries that the second reading needs most
// over all heads are kept, and how many of them each head keeps, averaged over the texts, is its share.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "calibrate/options.hpp"

namespace calibrate {

// Shares [layers][kv_heads], mean 1, at one share of the prompt.
struct Level {
  double budget;
  std::vector<std::vector<double>> shares;
};

// Throws UsageError if a text is too short or the model cannot be read.
std::vector<Level> measure_profile(const Options& options);

// The file that budget/profile.hpp reads.
void write_profile(std::ostream& out, const Options& options, const std::vector<Level>& levels);

// The heads as a map: a row per layer, a cell per kv head and level, darker where a head gets more.
void print_map(std::ostream& out, const std::vector<Level>& levels);

}  // namespace calibrate
