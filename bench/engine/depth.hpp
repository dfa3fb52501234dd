// A full cache in seconds: 512 tokens are computed once by plain llama.cpp, their state is saved, and it is
// restored behind itself, with its positions moved on, until the context is full. llama.cpp then holds what
// it would hold after a prompt of that length; the plug-in finds cells that it has not written and reads them
// (its `rebuild`), and the last 64 tokens are fed for real, for their queries decide what it keeps.
#pragma once

#include <cstddef>
#include <string>

#include "generate/model.hpp"

namespace bench {

inline constexpr std::size_t kBlock = generate::Session::kChunk;  // tokens computed and copied
inline constexpr std::size_t kFed =
    64;  // computed at the end; as many as the plug-in waits for after a rebuild

struct Depth {
  std::size_t tokens = 0;
  bool copied = true;      // or all computed
  std::string block_file;  // the state of the first kBlock tokens; made if it is not there
};

// The cells that filling to this depth needs for a moment, with copies of whole blocks.
std::size_t cells_needed(const Depth& depth);

// job.prompt holds at least kBlock and depth.tokens tokens; job.sequences is 2 if the past is copied.
void fill(generate::Session& session, const generate::Model& model, const generate::Job& job,
          const Depth& depth);

}  // namespace bench
