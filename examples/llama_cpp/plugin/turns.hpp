// Which rows of a sequence belong to a prompt, and which ones are decoded. Not a matter of how many come at
// once: a prompt may come token by token, and a decoding engine may check several drafted tokens in one call.
// What tells is which rows' outputs the engine asks for. A prompt's last row is the first one whose output
// somebody wants, since the next token is sampled from it; a row behind that one has been sampled or guessed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace zeromerge::plugin {

enum class RowKind { prompt, decoded };

// The turns of one sequence so far: each is a prompt, and what was decoded behind it.
class Turns {
 public:
  // As many rows as a call may decode at once: drafts that are checked together. More are a prompt's,
  // whatever their outputs.
  static constexpr std::size_t kMostDrafts = 64;
  // Where outputs are not known, a prompt has ended when so many calls in succession have brought one row:
  // the engine may split off the first and the last token of a prompt.
  static constexpr std::size_t kSingles = 3;

  // The kind of a call's rows, which stand behind `tokens` tokens; outputs[i] is not 0 if row i's output is
  // asked for. All rows of a call are of one kind.
  RowKind next(std::size_t tokens, std::span<const char> outputs) {
    const auto wanted = std::find_if(outputs.begin(), outputs.end(), [](char x) { return x != 0; });
    const bool all = std::all_of(outputs.begin(), outputs.end(), [](char x) { return x != 0; });
    singles_ = 0;
    if (has_output() && all && outputs.size() <= kMostDrafts) return RowKind::decoded;
    if (turns_.empty() || has_output()) turns_.push_back({tokens, kNone});
    if (wanted != outputs.end())
      turns_.back().output = tokens + static_cast<std::size_t>(wanted - outputs.begin()) + 1;
    return RowKind::prompt;
  }

  // The same where it is not known which outputs are asked for.
  RowKind next_unknown(std::size_t tokens, std::size_t rows) {
    singles_ = rows == 1 ? singles_ + 1 : 0;
    if (has_output() && rows == 1) return RowKind::decoded;
    if (!has_output() && !turns_.empty() && singles_ >= kSingles) {
      turns_.back().output = tokens;
      return RowKind::decoded;
    }
    if (turns_.empty() || has_output()) turns_.push_back({tokens, kNone});
    return RowKind::prompt;
  }

  // The caller says that the prompt ends with these tokens.
  void end_prompt(std::size_t tokens) {
    if (turns_.empty()) turns_.push_back({0, kNone});
    if (!has_output()) turns_.back().output = tokens;
  }

  // All but the first `tokens` are forgotten. A prompt of which the row with an output is gone goes on.
  void cut(std::size_t tokens) {
    for (; !turns_.empty() && turns_.back().first >= tokens; turns_.pop_back()) singles_ = 0;
    if (!has_output() || turns_.back().output <= tokens) return;
    turns_.back().output = kNone;
    singles_ = 0;
  }

  // Tokens before the newest turn, and behind the row at which its prompt ended, if it has.
  std::size_t first() const noexcept { return turns_.empty() ? 0 : turns_.back().first; }
  std::size_t prompt_end() const noexcept { return turns_.back().output; }

  // Whether the newest prompt's output has been asked for, so that what comes next may be decoded.
  bool has_output() const noexcept { return !turns_.empty() && turns_.back().output != kNone; }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  struct Turn {
    std::size_t first;   // tokens before it
    std::size_t output;  // tokens up to and with the first row with an output; kNone: there was none yet
  };
  std::vector<Turn> turns_;
  std::size_t singles_ = 0;  // calls of one row in succession, where outputs are not known
};

}  // namespace zeromerge::plugin
