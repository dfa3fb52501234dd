// The copy of a model with f16 weights, made once and kept.
//
// Predictions are compared on it because quantised weights would drown the differences sought: with Q4_1
// weights llama.cpp quantises the activations too, and its own paths with and without flash attention differ
// by a mean KL of 4.5e-3; with f16 weights by 5e-6.
#pragma once

#include <filesystem>
#include <functional>

#include "generate/job.hpp"

namespace generate {

// The copy's path; `make` writes the copy named by job.output_file if none newer than the model exists.
std::filesystem::path expanded_model(Job job, const std::function<void(const Job&)>& make);

}  // namespace generate
