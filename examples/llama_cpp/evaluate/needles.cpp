#include "evaluate/needles.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "evaluate/haystack.hpp"
#include "evaluate/runner.hpp"
#include "generate/error.hpp"

namespace evaluate {
namespace {

using generate::Conversation;
using generate::Job;
using generate::Question;
using generate::Task;
using nlohmann::json;

constexpr std::size_t kNeedles = 5;  // in a haystack
constexpr std::size_t kSeams = 8;    // tokens that parts may take more together than apart
constexpr std::size_t kRoom = 128;   // tokens for a question and its answer

const char* const kPreface =
    "Some special magic numbers are hidden in the following text. Remember them; you will be asked for them "
    "afterwards.\n\n";

// What one child is to do: contexts with their questions, and the numbers that answer them.
struct Sheet {
  std::vector<Conversation> conversations;
  std::vector<std::vector<std::string>> numbers;  // [conversations][questions]
};

class Needles {
 public:
  Needles(const Options& options, Findings& findings, const Changed& changed)
      : options_(options),
        findings_(findings),
        changed_(changed),
        runner_(options),
        counter_(options.texts.size() * (1 + options.policies.size() * options.budgets.size())) {}

  void run() {
    std::vector<Sheet> sheets;
    for (const std::filesystem::path& text : options_.texts) sheets.push_back(draw(text));
    runner_.expand();
    for (std::size_t i = 0; i < sheets.size(); ++i) measure(options_.texts[i].filename().string(), sheets[i]);
  }

 private:
  // The same for every policy: which words, numbers and depths a seed draws depends on nothing else.
  Sheet draw(const std::filesystem::path& path) {
    const Tokenized text = runner_.read(path);
    Sheet sheet;
    for (std::int32_t seed = 1; seed <= options_.seeds; ++seed) {
      Random random(static_cast<std::uint64_t>(seed));
      const std::vector<Needle> needles = draw_needles(random, kNeedles);
      std::vector<std::string> parts{kPreface};
      for (const Needle& needle : needles) parts.push_back(" " + needle.sentence());
      if (options_.asked_in) parts.push_back(needles.front().question());
      const std::string cut = beginning(text, path, count(runner_.tokenize(parts)) + kSeams);
      add(sheet, kPreface + with_needles(cut, needles, random), needles);
    }
    return sheet;
  }

  static std::size_t count(const std::vector<Tokenized>& parts) {
    std::size_t tokens = 0;
    for (const Tokenized& part : parts) tokens += part.tokens.size();
    return tokens;
  }

  // What there is room for beside `taken` tokens; no character is cut.
  std::string beginning(const Tokenized& text, const std::filesystem::path& path, std::size_t taken) const {
    const auto wanted = static_cast<std::size_t>(options_.prompt_tokens);
    if (wanted < taken + 64)
      throw generate::UsageError("--prompt-tokens: needles and their preface take " + std::to_string(taken) +
                                 " tokens; give at least " + std::to_string(taken + 64));
    if (text.tokens.size() < wanted - taken)
      throw generate::UsageError("--text: " + path.string() + " has " + std::to_string(text.tokens.size()) +
                                 " tokens, " + std::to_string(wanted - taken) +
                                 " are needed; give a longer text or a smaller --prompt-tokens");
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < wanted - taken; ++i) bytes += text.sizes[i];
    bytes = std::min(bytes, text.text.size());
    while (bytes > 0 && bytes < text.text.size() && (text.text[bytes] & 0xC0) == 0x80) --bytes;
    return text.text.substr(0, bytes);
  }

  // After the text: one conversation for all questions; in it: one for each.
  void add(Sheet& sheet, const std::string& haystack, const std::vector<Needle>& needles) {
    std::vector<std::string> parts{haystack};
    for (const Needle& needle : needles) parts.insert(parts.end(), {needle.question(), needle.answer()});
    const std::vector<Tokenized> tokenized = runner_.tokenize(parts);
    Tokens context = runner_.begin();
    context.insert(context.end(), tokenized[0].tokens.begin(), tokenized[0].tokens.end());
    if (!options_.asked_in) {
      sheet.conversations.push_back({context, {}});
      sheet.numbers.emplace_back();
    }
    for (std::size_t i = 0; i < needles.size(); ++i) {
      Question q{tokenized[1 + 2 * i].tokens, tokenized[2 + 2 * i].tokens};
      if (options_.asked_in) {
        sheet.conversations.push_back({context, {}});
        sheet.numbers.emplace_back();
        Tokens& all = sheet.conversations.back().context;
        all.insert(all.end(), q.question.begin(), q.question.end());
        q.question.clear();
      }
      sheet.conversations.back().questions.push_back(q);
      sheet.numbers.back().push_back(needles[i].number);
    }
  }

  json key(const std::string& text, const std::string& policy, const std::string& budget) const {
    return {{"task", "needles"},
            {"asked", options_.asked_in ? "in" : "after"},
            {"text", text},
            {"policy", policy},
            {"budget", budget}};
  }

  void measure(const std::string& text, const Sheet& sheet) {
    std::vector<bool> counts;  // which questions count: of all, those that the full cache answers
    const auto full = key(text, "full", "100%");
    const std::string label = counter_.next();
    if (has(findings_.floor, full) && is_complete(text)) {
      for (std::size_t i = 0; i < options_.policies.size() * options_.budgets.size(); ++i) counter_.next();
      return;
    }
    counts = ask(findings_.floor, full, "full", label, sheet, {});
    for (const std::string& budget : options_.budgets)
      for (const std::string& policy : options_.policies)
        (void)ask(findings_.rows, key(text, policy, budget), runner_.spec(policy, budget), counter_.next(),
                  sheet, counts);
  }

  bool is_complete(const std::string& text) const {
    for (const std::string& budget : options_.budgets)
      for (const std::string& policy : options_.policies)
        if (!has(findings_.rows, key(text, policy, budget))) return false;
    return true;
  }

  // Which questions are answered right; adds a row unless there is one.
  std::vector<bool> ask(json& rows, json row, const std::string& policy, const std::string& label,
                        const Sheet& sheet, const std::vector<bool>& counts) {
    const bool is_full = counts.empty();
    const bool is_there = has(rows, row);
    if (is_there && !is_full) return {};
    Job job = runner_.job(Task::ask, static_cast<std::size_t>(options_.prompt_tokens) + kRoom);
    job.label = label + row["text"].get<std::string>() + ", " + policy;
    job.policy = policy;
    job.conversations = sheet.conversations;
    const json result = runner_.run(job)["conversations"];
    std::vector<bool> right;
    std::size_t counted = 0, good = 0, entries = 0, bytes = 0;
    for (std::size_t c = 0; c < result.size(); ++c) {
      entries += result[c]["entries_per_head"].get<std::size_t>();
      bytes += result[c]["kv_bytes"].get<std::size_t>();
      for (std::size_t q = 0; q < sheet.numbers[c].size(); ++q) {
        const std::string said = result[c]["answers"][q]["text"];
        right.push_back(first_number(said) == sheet.numbers[c][q]);
        const bool one = is_full || counts[right.size() - 1];
        counted += one ? 1 : 0;
        good += one && right.back() ? 1 : 0;
      }
    }
    row.update({{"entries", entries / result.size()},
                {"bytes", bytes / result.size()},
                {"right", good},
                {"counted", counted}});
    if (!is_there) {
      rows.push_back(row);
      changed_();
    }
    return right;
  }

  const Options& options_;
  Findings& findings_;
  const Changed& changed_;
  Runner runner_;
  Counter counter_;
};

}  // namespace

void measure_needles(const Options& options, Findings& findings, const Changed& changed) {
  Needles(options, findings, changed).run();
}

}  // namespace evaluate
