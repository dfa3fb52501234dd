#include "evaluate/scbench.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "evaluate/runner.hpp"
#include "evaluate/scbench/kinds.hpp"
#include "generate/error.hpp"

namespace evaluate {
namespace {

using generate::Conversation;
using generate::Job;
using generate::Question;
using generate::Task;
using nlohmann::json;
using scbench::Kind;
using scbench::Session;

constexpr std::size_t kRoom = 1024;  // tokens for questions and answers

struct Drawn {
  const Kind* kind;
  Session session;
  Conversation asked;  // in tokens, for the mode multi-request
};

// Means over the answers of one kind, for the first question of each context or those after it.
struct Mean {
  double score = 0.0, nll = 0.0, entries = 0.0, bytes = 0.0;
  std::size_t count = 0;
};

class Scbench {
 public:
  Scbench(const Options& options, Findings& findings, const Changed& changed)
      : options_(options),
        findings_(findings),
        changed_(changed),
        runner_(options),
        counter_(2 * (1 + options.policies.size() * options.budgets.size())) {}

  void run() {
    for (const Kind& kind : scbench::kKinds) draw(kind);
    runner_.expand();
    for (const char* mode : {"multi-turn", "multi-request"}) {
      add(findings_.floor, mode, "full", "100%", "full");
      for (const std::string& budget : options_.budgets)
        for (const std::string& policy : options_.policies)
          add(findings_.rows, mode, policy, budget, runner_.spec(policy, budget));
    }
  }

 private:
  std::size_t wanted() const { return static_cast<std::size_t>(options_.prompt_tokens); }

  std::vector<Session> sessions(const Kind& kind, std::size_t units) const {
    std::vector<Session> all;
    for (std::int32_t seed = 1; seed <= options_.seeds; ++seed)
      all.push_back(kind.draw(static_cast<std::uint64_t>(seed), units));
    return all;
  }

  // The largest number of units whose contexts have --prompt-tokens tokens at most, nearly.
  void draw(const Kind& kind) {
    std::size_t units = std::max<std::size_t>(kind.least, 16);
    for (int round = 0;; ++round) {
      std::vector<Session> all = sessions(kind, units);
      const std::size_t most = longest(all);
      const bool fits = most <= wanted();
      if (fits && (round >= 2 || most * 20 >= wanted() * 19)) return keep(kind, std::move(all));
      if (!fits && units == kind.least)
        throw generate::UsageError("--prompt-tokens: the smallest context of " + std::string(kind.name) +
                                   " has " + std::to_string(most) + " tokens; give at least as many");
      // Below the mark: what does not fit must shrink.
      units =
          std::max(kind.least, std::min(units * wanted() * 49 / (most * 50), fits ? SIZE_MAX : units - 1));
    }
  }

  std::size_t longest(const std::vector<Session>& all) {
    std::vector<std::string> texts;
    for (const Session& session : all) texts.push_back(session.prompt());
    std::size_t most = 0;
    for (const Tokenized& text : runner_.tokenize(texts)) most = std::max(most, text.tokens.size());
    return most + runner_.begin().size();
  }

  void keep(const Kind& kind, std::vector<Session> all) {
    for (Session& session : all) {
      std::vector<std::string> parts{session.prompt()};
      for (const scbench::Turn& turn : session.turns) {
        // Tokens begin with a blank and do not end with one: it goes from the question to the answer.
        const bool blank = turn.question.ends_with(' ');
        parts.push_back(turn.question.substr(0, turn.question.size() - (blank ? 1 : 0)));
        parts.push_back((blank ? " " : "") + turn.answer);
      }
      const std::vector<Tokenized> tokens = runner_.tokenize(parts);
      Drawn drawn{&kind, std::move(session), {runner_.begin(), {}}};
      Tokens& context = drawn.asked.context;
      context.insert(context.end(), tokens[0].tokens.begin(), tokens[0].tokens.end());
      for (std::size_t i = 1; i < tokens.size(); i += 2)
        drawn.asked.questions.push_back({tokens[i].tokens, tokens[i + 1].tokens});
      drawn_.push_back(std::move(drawn));
    }
  }

  // In multi-turn the first question is the context's end.
  std::vector<Conversation> conversations(bool multi_turn) const {
    std::vector<Conversation> all;
    for (const Drawn& drawn : drawn_) {
      all.push_back(drawn.asked);
      if (!multi_turn) continue;
      Tokens& first = all.back().questions.front().question;
      all.back().context.insert(all.back().context.end(), first.begin(), first.end());
      first.clear();
    }
    return all;
  }

  static json key(const Kind& kind, const std::string& mode, const std::string& policy,
                  const std::string& budget, const std::string& turn) {
    return {{"task", "scbench"}, {"mode", mode},     {"kind", kind.name},
            {"policy", policy},  {"budget", budget}, {"turn", turn}};
  }

  void add(json& rows, const std::string& mode, const std::string& policy, const std::string& budget,
           const std::string& spec) {
    const std::string label = counter_.next();
    bool complete = true;
    for (const Kind& kind : scbench::kKinds)
      for (const char* turn : {"first", "later"})
        complete = complete && has(rows, key(kind, mode, policy, budget, turn));
    if (complete) return;
    Job job = runner_.job(Task::ask, wanted() + kRoom);
    job.label = label + mode + ", " + spec;
    job.policy = spec;
    job.grows = mode == "multi-turn";
    job.conversations = conversations(job.grows);
    const json result = runner_.run(job)["conversations"];
    for (const Kind& kind : scbench::kKinds)
      for (const bool later : {false, true}) {
        json row = key(kind, mode, policy, budget, later ? "later" : "first");
        if (has(rows, row)) continue;
        fill(row, mean(result, kind, later));
        rows.push_back(row);
      }
    changed_();
  }

  Mean mean(const json& result, const Kind& kind, bool later) const {
    Mean m;
    for (std::size_t c = 0; c < drawn_.size(); ++c) {
      if (drawn_[c].kind != &kind) continue;
      const auto& turns = drawn_[c].session.turns;
      for (std::size_t i = later ? 1 : 0; i < (later ? turns.size() : 1); ++i) {
        const json& answer = result[c]["answers"][i];
        m.score += kind.score(answer["text"].get<std::string>(), turns[i]);
        m.nll += answer["nll"].get<double>();
        m.entries += result[c]["entries_per_head"].get<double>();
        m.bytes += result[c]["kv_bytes"].get<double>();
        ++m.count;
      }
    }
    for (double* x : {&m.score, &m.nll, &m.entries, &m.bytes}) *x /= static_cast<double>(m.count);
    return m;
  }

  // The full cache's likelihood stands beside; for its own row it is the same.
  void fill(json& row, const Mean& m) const {
    row.update({{"entries", static_cast<std::size_t>(m.entries)},
                {"bytes", static_cast<std::size_t>(m.bytes)},
                {"score", m.score},
                {"answer_nll", m.nll},
                {"answer_nll_full", m.nll},
                {"counted", m.count}});
    for (const json& full : findings_.floor)
      if (matches(full,
                  {{"task", "scbench"}, {"mode", row["mode"]}, {"kind", row["kind"]}, {"turn", row["turn"]}}))
        row["answer_nll_full"] = full["answer_nll"];
  }

  const Options& options_;
  Findings& findings_;
  const Changed& changed_;
  Runner runner_;
  Counter counter_;
  std::vector<Drawn> drawn_;
};

}  // namespace

void measure_scbench(const Options& options, Findings& findings, const Changed& changed) {
  Scbench(options, findings, changed).run();
}

}  // namespace evaluate
