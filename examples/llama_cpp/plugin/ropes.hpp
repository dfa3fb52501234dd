// The rotation of a layer's keys, read off the operator that computes them.
#pragma once

#include <memory>

#include "ggml.h"
#include "zeromerge/core/rope.hpp"

namespace zeromerge::plugin {

// What rotates the rows that `write` (a SET_ROWS on a layer's keys) puts into the cells; null where they are
// not rotated, or by something the library does not know. `last`: what was read before, which is returned if
// it is the same.
std::shared_ptr<const Rope> rope_of_write(const ggml_tensor* write, std::shared_ptr<const Rope> last);

}  // namespace zeromerge::plugin
