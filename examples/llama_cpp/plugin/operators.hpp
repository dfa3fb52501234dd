// Which of the engine's operators the plug-in answers.
#pragma once

#include <cstdint>

#include "ggml.h"

namespace zeromerge::plugin {

// Whether the plug-in answers this operation. Attention that needs more than K, V, a mask, a scale, a
// soft-cap and sinks (ALiBi, other types) is not taken: the engine's own kernels answer it, as if the plug-in
// were not there.
bool takes(const ggml_tensor* op);

// A float among an operator's parameters, by its place.
float float_parameter(const ggml_tensor* op, int index);
// The row that a SET_ROWS writes its row i to.
std::int64_t row_index(const ggml_tensor* index, std::int64_t i);
// Runs a SET_ROWS on cells. Throws Error on a row that the cells do not have.
void write_rows(const ggml_tensor* op);

}  // namespace zeromerge::plugin
