// Taking back decoded tokens: what each of them changes in a head is recorded (storage/undo_log.hpp), from
// the first on that lets an entry leave or a group be packed; before that a token is its entry, the last one.
// So are the newest tokens of a prompt that has ended, as far as nothing has left for them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "zeromerge/cache/evict.hpp"
#include "zeromerge/cache/policy.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge::detail {

// A head and its areas before a step.
struct StepNote {
  std::uint64_t held_sum;
  std::uint32_t size, residuals, rated;
  std::uint32_t ring;  // the oldest place, and in the lowest bit whether it has turned
};

template <class H>
void begin_step(H& head, const HeadState& state) noexcept {
  if (!head.log().started()) return;
  head.log().begin();
  const auto number = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
  head.log().add(UndoLog::Kind::note, 0,
                 StepNote{state.held_sum, number(head.size()), number(state.residuals), number(state.rated),
                          number(state.ring_next << 1 | (state.ring ? 1u : 0u))});
}

// The head has got another division than this since the step began.
template <class H>
void note_division(H& head, const Division& before) noexcept {
  if (head.log().recording()) head.log().add(UndoLog::Kind::division, 0, before);
}

// Bytes of a step's records: on average, and at most.
struct StepBytes {
  std::size_t usual, most;
};
template <class P, class H>
StepBytes step_bytes(const P& policy, const H& head, const HeadState& state, const Division& d,
                     std::size_t tokens) noexcept {
  const std::size_t block = policy.areas.block;
  // Where entries move bit for bit, one that moves need not be written down.
  const bool exact = !head.packs_late();
  const auto step = [&](bool most) {
    const std::size_t entry = head.entry_record_bytes(most);
    const std::size_t moved = exact ? UndoLog::taken(sizeof(std::uint32_t)) : entry;
    return entry + moved + (block > 1 ? moved : 0) + (d.residual != 0 ? entry : 0);
  };
  StepBytes bytes{UndoLog::taken(sizeof(StepNote)) + step(false), UndoLog::taken(sizeof(StepNote))};
  bytes.most += block * step(true);
  if (d.mean != 0) bytes.most += UndoLog::taken(sizeof(Division)) + UndoLog::taken(2 * sizeof(std::uint32_t));
  const std::size_t founded = d.residual - std::min(d.residual, state.residuals);
  bytes.most += founded * (exact ? UndoLog::taken(sizeof(std::uint32_t)) : 2 * head.entry_record_bytes(true));
  const std::size_t packing =
      head.pack_record_bytes(std::min(head.size() + tokens, d.capacity), loose_rows(d));
  if (packing != 0) bytes.most += packing + 2 * UndoLog::taken(0);
  if (block > 1 && !exact) bytes.most += head.cut_record_bytes(block) + 2 * UndoLog::taken(0);
  return bytes;
}

// How many of the newest tokens, `seen` in all, are just the last entries of a head, in the order of arrival
// and exempt from what a score or a merge has made of it.
template <class H>
std::size_t plain_tokens(const H& head, const HeadState& state, std::size_t seen, std::size_t most) noexcept {
  std::size_t n = 0;
  if (state.ring) return n;
  const bool untouched = head.size() == seen && state.residuals + state.rated == 0;
  const std::size_t fixed = untouched ? 0 : state.division.sinks + state.residuals + state.rated;
  const std::size_t free = head.size() - std::min(head.size(), std::max(fixed, head.plain_from()));
  while (n < std::min(most, free) && head.position()[head.size() - 1 - n] == seen - 1 - n) ++n;
  return n;
}

// Of the newest tokens so many can be taken back from a head, of a window of `window`.
template <class H>
std::size_t can_take_back(const H& head, const HeadState& state, std::size_t seen,
                          std::size_t window) noexcept {
  const UndoLog& log = head.log();
  if (!log.started()) return plain_tokens(head, state, seen, window);
  return std::min(window, log.steps() + (log.whole() ? log.base() : 0));
}

// Room for what taking back `tokens` more asks for, when the division may have grown to `d`. Throws
// std::bad_alloc with nothing changed that matters.
template <class P, class H>
void reserve_undo(const P& policy, H& head, const HeadState& state, const Division& d, std::size_t seen,
                  std::size_t tokens) {
  const std::size_t window = policy.areas.rollback;
  if (window == 0) return;
  if (head.fields().score)
    head.images().begin(std::min(window, tokens), kernels::round_up(head.capacity(), kernels::kTile));
  const bool changes = d.capacity != state.division.capacity ||
                       (d.capacity != kUnlimited && head.size() + tokens + d.residual > d.capacity) ||
                       head.pack_record_bytes(head.size() + tokens, loose_rows(d)) != 0;
  if (!head.log().started() && !changes) return;
  const StepBytes bytes = step_bytes(policy, head, state, d, tokens);
  head.log().reserve(window, tokens, bytes.usual, bytes.most);
  if (!head.log().started()) head.log().start(plain_tokens(head, state, seen, window));
}

// Takes the newest step back.
template <class H>
void take_step_back(H& head, HeadState& state, float faded) noexcept {
  head.log().take_back([&](const UndoLog::Record& record) {
    if (record.kind == UndoLog::Kind::division) {
      std::memcpy(&state.division, record.payload, sizeof state.division);
    } else if (record.kind == UndoLog::Kind::note) {
      StepNote note;
      std::memcpy(&note, record.payload, sizeof note);
      head.set_size(note.size);
      state.residuals = note.residuals;
      state.rated = note.rated;
      state.held_sum = note.held_sum;
      state.ring_next = note.ring >> 1;
      state.ring = (note.ring & 1u) != 0;
    } else {
      head.undo(record, faded);
    }
  });
}

// Takes the newest `tokens` back, as many as can_take_back() allows. Scores are those of before for tokens of
// the newest decode call. The queries of others keep their part in them, and entries that come back for such
// tokens have the score they left with, faded by `decay` for each query since.
template <class H>
void take_back(H& head, HeadState& state, std::size_t tokens, float decay) noexcept {
  const std::size_t exact = std::min(tokens, head.images().count());
  float faded = 1.0f;
  for (std::size_t i = 0; i < tokens; ++i) {
    if (i >= exact) faded *= decay;
    if (head.log().steps() != 0)
      take_step_back(head, state, i < exact ? 1.0f : faded);
    else
      head.cut(head.size() - 1);
    if (i + 1 == exact) head.images().take_back(exact, head.score(), head.size());
  }
  head.log().stop();
}

}  // namespace zeromerge::detail
