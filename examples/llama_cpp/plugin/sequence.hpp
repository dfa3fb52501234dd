// One sequence: the chain of its cells, and one library cache that holds all of its layers. The chain is what
// the engine shows; the layers follow it. They may be behind it (rows that no cache answered, a failed graph)
// or ahead of it (tokens that the engine has taken back), and are brought to it before the next rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "chain.hpp"
#include "plugin_api.h"
#include "turns.hpp"
#include "zeromerge/cache/any_cache.hpp"

namespace zeromerge::plugin {

// What a sequence was before the engine took its cells for others: by it a saved state is recognised.
struct Imprint {
  std::vector<std::size_t> order;   // the cells of its tokens
  std::vector<std::uint64_t> keys;  // the first bytes of the watched layer's keys in them; 0: not known
  std::size_t agreed = 0;           // see Sequence::agreed()
  Turns turns;
};

class Sequence {
 public:
  // In a stream of so many cells; `number` is its own and never used again.
  Sequence(std::size_t cells, std::uint64_t number) : chain(cells), number_(number) {}
  ~Sequence() { drop(); }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  Chain chain;
  Turns turns;
  bool windowed = false;          // its masks forget the oldest tokens, so that no cache can answer
  std::uint64_t graph = 0;        // the last graph that it had rows in
  std::uint64_t left_behind = 0;  // the number of the sequence that it was forked off from and that may be
  std::uint64_t left_at = 0;      // over, and the graph in which that was

  std::uint64_t number() const noexcept { return number_; }

  // ---- the cache

  AnyCache* cache() const noexcept { return cache_.get(); }
  // Takes an empty cache in place of the one it has.
  void start(std::unique_ptr<AnyCache> cache);
  // Frees the cache and what depends on it; the chain stays.
  void drop() noexcept;
  // A copy of the first `tokens` tokens, cache and all. Its cache is missing if the layers cannot go back to
  // that many.
  std::unique_ptr<Sequence> fork(std::size_t cells, std::uint64_t number, std::size_t tokens) const;

  // A sequence that goes on from the first tokens of the imprint (of this one's), which lie in the cells
  // `order` now. Its cache is missing if the layers cannot go back to that many.
  std::unique_ptr<Sequence> resume(std::size_t cells, std::uint64_t number, const Imprint& imprint,
                                   const std::vector<std::size_t>& order) const;
  // Before cells go: keeps what the sequence is now, keys[i] of token i, unless it does so already. Once it
  // has rows again, that is what the engine shows.
  void remember(std::vector<std::uint64_t> keys);
  const Imprint* imprint() const noexcept { return imprint_ ? &*imprint_ : nullptr; }

  // The chain loses all but the first `tokens`.
  void cut(std::size_t tokens);
  // The chain grows; `answered`: the layers are about to take these tokens.
  void append(const std::vector<std::size_t>& cells, bool answered);
  // What layers hold behind so many tokens is none of the chain's.
  std::size_t agreed() const noexcept { return agreed_; }
  // The cache from which all layers can go back to so many tokens, or on to them: its own, or what was kept
  // when the newest turn began or its prompt ended. Null: none.
  AnyCache* way_back_to(std::size_t tokens) const;
  bool can_go_back_to(std::size_t tokens) const { return way_back_to(tokens) != nullptr; }
  // Rows of a prompt are about to come behind what is compressed: if a turn begins with them this is kept,
  // until more tokens have been decoded than can be taken back; with reclaiming on, where the engine has
  // nothing to read again, until the next turn. (Of the turn's own tokens the end of its prompt may drop
  // some, so a log would not lead back to it.)
  void begin_turn();
  // Whether the token at `place` may have to be read again. Nothing shows that the engine has moved the past
  // but the newest one's key.
  bool may_need(std::size_t place) const;
  // Whether they would go back to a past that they have read without queries and not compressed since, so
  // that it could as well be read again.
  bool goes_back_to_what_it_read() const;
  // Back to what is agreed.
  void go_back();
  // Whether there is a cache whose prompt has ended in all layers.
  bool is_compressed() const;
  // Whether a head holds fewer entries than there were tokens.
  bool has_dropped() const;
  // Tokens that a layer holds.
  std::size_t held(std::size_t layer) const { return cache_->layer(layer).tokens(); }
  // A layer takes the next tokens of the chain, whose queries are gone.
  void read(std::size_t layer, const RowView& k, const RowView& v);
  // To be called once all layers have read `tokens` tokens without queries: so many (at most kSettle) have to
  // come with them before anything is compressed. `anew`: the cache held nothing before.
  void has_read(std::size_t tokens, bool anew);

  // What the next rows behind `tokens` are; outputs: of these rows, or null if that is not known.
  RowKind next(std::size_t tokens, std::size_t rows, const std::vector<char>* outputs);
  // Ends the prompt, if decoding is what comes next and the cache has seen enough queries.
  void finish_prompt();

  // Answers the rows of one layer.
  void answer(std::size_t layer, RowKind kind, const RowView& q, const RowView& k, const RowView& v,
              const OutView& out);
  // The same for rows that see all of each other.
  void answer_block(std::size_t layer, const RowView& q, const RowView& k, const RowView& v,
                    const OutView& out);
  // All layers have answered `tokens` rows.
  void has_answered(std::size_t tokens);

  // ---- what the program asks for

  void begin_second_reading();
  void end_second_reading();

  // Remembers what it holds and knows, in place of what it remembered before.
  void checkpoint();
  bool has_checkpoint() const noexcept { return checkpoint_ != nullptr; }
  // Holds again what it remembered. The engine must show that past at the next call.
  void rollback();

  // What it holds.
  std::size_t bytes() const;
  // Brings the process's count of bytes up to date.
  void account();

 private:
  // Queries that a cache sees before it is compressed if it has read its past from the engine's cells:
  // without any, it could only guess what matters.
  static constexpr std::size_t kSettle = 64;

  struct Checkpoint {
    std::vector<std::unique_ptr<AnyCheckpoint>> held;
    Chain chain;
    Turns turns;
    std::size_t settle;
    std::size_t read;
  };

  // What was compressed when a turn began or, with reclaiming on, when its prompt ended.
  struct Mark {
    std::unique_ptr<AnyCache> cache;
    std::size_t tokens;
  };

  static bool can_truncate(AnyCache* cache, std::size_t tokens);
  void copy_cache(Sequence& to) const;

  std::uint64_t number_;
  std::unique_ptr<AnyCache> cache_;
  std::vector<Mark> marks_;                 // in the order of their tokens
  std::unique_ptr<Checkpoint> checkpoint_;  // it goes with cache_, in whose count it is
  std::optional<Imprint> imprint_;
  std::size_t accounted_ = 0;     // bytes of cache_ in the process's count
  std::size_t peak_ = 0;          // of cache_ when it was counted last
  std::size_t agreed_ = 0;        // tokens up to which layers and chain say the same
  std::size_t settle_ = 0;        // rows that still count as a prompt's
  std::size_t read_ = 0;          // tokens that came without queries when the cache was made
  std::size_t reading_from_ = 0;  // tokens of the prompt while it is read a second time, else 0
};

}  // namespace zeromerge::plugin
