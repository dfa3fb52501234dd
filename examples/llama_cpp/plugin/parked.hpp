// Sequences that are over for the engine, for all that shows. It may have saved such a state, as a server
// does by itself with conversations that are idle, and restore it: then the cache need not read all of it
// again, and with reclaiming on, where zeros have been saved, it is all that knows the content. So some are
// kept, compressed as they are, until others take their place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "sequence.hpp"

namespace zeromerge::plugin {

// Cells of the engine, rising, and the first bytes of the keys in them (0: there is no content).
struct Shown {
  std::vector<std::size_t> cells;
  std::vector<std::uint64_t> keys;
  // Likewise of the cells behind these, which the engine does not show: it restores a state as it was saved,
  // and then takes its newest tokens back.
  std::vector<std::uint64_t> behind;
};

// Whether the first tokens of `imprint` now lie in the cells that are shown: a state is saved in the order of
// its cells, and restored in that of others. order: these cells in the order of the tokens.
bool lies_in(const Imprint& imprint, const Shown& shown, std::vector<std::size_t>& order);

class Parked {
 public:
  // As many as a server with a few slots has conversations. The one that was parked first goes first, of
  // those that have been resumed if there are any: they have gone on since.
  static constexpr std::size_t kMost = 16;

  // The sequence must have an imprint.
  void park(std::unique_ptr<Sequence> sequence);

  // The newest sequence whose past lies in these cells, one of that length first; null: none. See lies_in.
  const Sequence* find(const Shown& shown, std::vector<std::size_t>& order);

  void clear() { held_.clear(); }
  bool empty() const noexcept { return held_.empty(); }
  std::size_t bytes() const;

 private:
  struct Held {
    std::unique_ptr<Sequence> sequence;
    bool resumed = false;
  };
  std::vector<Held> held_;
};

}  // namespace zeromerge::plugin
