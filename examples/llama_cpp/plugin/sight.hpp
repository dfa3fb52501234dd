// What the rows of one stream of a call see, read from the mask: which of them continue each other. All
// layers of a graph share it, so it is read once per graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "chain.hpp"
#include "reasons.hpp"

namespace zeromerge::plugin {

// The mask's rows of one stream: f16 [tokens][cells].
struct MaskRows {
  const char* data;
  std::size_t stride;  // bytes from one row to the next
  std::size_t tokens;
  std::size_t cells;

  Cells row(std::size_t token) const {
    return {reinterpret_cast<const std::uint16_t*>(data + token * stride), cells};
  }
};

// Rows of one sequence, in the order of its tokens.
struct Run {
  enum class Kind {
    causal,  // each row sees what the one before it saw, and itself
    window,  // likewise, but some see less of the oldest tokens
    block,   // each row sees all of the run, also what comes behind it
  };
  Kind kind = Kind::causal;
  std::vector<std::size_t> rows;    // of the stream's rows in the call, rising
  std::vector<std::size_t> cells;   // that they write
  std::vector<std::uint16_t> past;  // [cells in view] what the first row sees beside the run's own cells
  std::size_t tokens = 0;           // how many cells `past` shows
};

struct Sight {
  std::vector<Run> runs;
  std::vector<std::size_t> others;   // rows that are in no run
  Reason reason = Reason::branches;  // why
};

// `written`: the cells that the rows write, by row.
Sight read_sight(const MaskRows& mask, const std::vector<std::size_t>& written);

}  // namespace zeromerge::plugin
