// Sequences that are over for the engine, for all that shows, and whose cells have been given back: if the
// engine has saved such a state, it has saved zeros, and when it restores it, only the caches know the
// content. A server does that by itself with conversations that are idle. So with reclaiming on some are
// kept, compressed as they are, until the engine shows their past again, or others take their place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "sequence.hpp"

namespace zeromerge::plugin {

// Whether the tokens that lay in the cells `old`, with these keys' first bytes (0: not known), now lie in
// `cells` (rising), with these (0: there is no content): a state is saved in the order of its cells, and
// restored in that of others. order: the new cells in the order of the tokens.
bool lies_in(const std::vector<std::size_t>& old, const std::vector<std::uint64_t>& known,
             const std::vector<std::size_t>& cells, const std::vector<std::uint64_t>& keys,
             std::vector<std::size_t>& order);

class Parked {
 public:
  // As many as a server with a few slots has conversations; the one that was parked first goes first.
  static constexpr std::size_t kMost = 16;

  // keys[i]: the first bytes of the key of token i, 0: not known.
  void park(std::unique_ptr<Sequence> sequence, std::vector<std::uint64_t> keys);

  // The newest sequence whose past lies in these cells; null: none. See lies_in.
  const Sequence* find(const std::vector<std::size_t>& cells, const std::vector<std::uint64_t>& keys,
                       std::vector<std::size_t>& order) const;

  void clear() { held_.clear(); }
  bool empty() const noexcept { return held_.empty(); }
  std::size_t bytes() const;

 private:
  struct Held {
    std::unique_ptr<Sequence> sequence;
    std::vector<std::uint64_t> keys;  // by token
  };
  std::vector<Held> held_;
};

}  // namespace zeromerge::plugin
