#include "evaluate/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <set>
#include <thread>

#include "generate/checks.hpp"
#include "generate/error.hpp"
#include "generate/known_profile.hpp"
#include "zeromerge/cache/spec.hpp"

namespace evaluate {
namespace {

namespace fs = std::filesystem;
using generate::UsageError;

// What is given by name.
struct Names {
  std::string task = "continuation";
  std::string equal = "entries";
  std::string asked = "after";
  std::string heads;  // POLICY@BUDGET
};

void declare(CLI::App& app, Options& options, Names& names) {
  const std::int32_t most = 1 << 24;
  app.add_option("--model", options.model, "GGUF file of the model")
      ->type_name("FILE")
      ->capture_default_str();
  app.add_option("--task", names.task,
                 "continuation: predictions along the text that follows the prompt; needles: numbers hidden "
                 "in the texts; scbench: generated contexts, several questions about each")
      ->check(CLI::IsMember({"continuation", "needles", "scbench"}))
      ->capture_default_str();
  app.add_option("--text", options.texts, "text files, each a prompt and what follows it; scbench needs none")
      ->type_name("FILE");
  app.add_option(
         "--policy", options.policies,
         "policies without a budget; the first is what the others are compared with; without any also "
         "best with the head profile that is known for the model")
      ->type_name("SPEC")
      ->capture_default_str();
  app.add_option(
         "--budget", options.budgets,
         "shares of the tokens seen, as in 5%, counts of entries a head, or bytes a head, as in 24KiB")
      ->type_name("N%|N|NKiB")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--equal", names.equal,
                 "what a share is one of: the entries, as many as tokens have been seen, or the bytes that "
                 "the prompt takes "
                 "in f16, of everything that is held")
      ->check(CLI::IsMember({"entries", "bytes"}))
      ->capture_default_str();
  app.add_option("--prompt-tokens", options.prompt_tokens, "tokens of each text that are the prompt")
      ->check(generate::whole_number(16, most, "--prompt-tokens 2048"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--predict", options.predict, "tokens behind it that are predicted one by one")
      ->check(generate::whole_number(1, most, "--predict 128"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--asked", names.asked,
                 "needles: after: the prompt is compressed before anything is asked; in: in sight of the "
                 "question")
      ->check(CLI::IsMember({"after", "in"}))
      ->capture_default_str();
  app.add_option("--seeds", options.seeds, "needles, scbench: how often each text or context is drawn anew")
      ->check(generate::whole_number(1, 10000, "--seeds 4"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads; without it one per core")
      ->check(generate::whole_number(1, generate::kMostThreads, "--threads 4"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option(
         "--json", options.json,
         "file to write the rows to after each one; rows that it holds already are not measured again")
      ->type_name("FILE");
  app.add_option("--html", options.html, "page to write after each row: charts, tables and the map of heads")
      ->type_name("FILE");
  app.add_option(
         "--heads-of", names.heads,
         "continuation: run whose heads the page maps, for the first text; without it the last policy at the "
         "first budget")
      ->type_name("SPEC@N%");
  app.add_option("--plugin", options.plugin, "the plug-in")->type_name("FILE")->capture_default_str();
}

void check_texts(const Options& options) {
  if (options.texts.empty() && options.task != Measure::scbench)
    throw UsageError("--text is required; give one or more text files");
  std::set<std::string> names;
  for (const fs::path& text : options.texts) {
    generate::require_file(text, "--text", "give an existing text file");
    if (!names.insert(text.filename().string()).second)
      throw UsageError(
          "--text: " + text.filename().string() +
          " was given twice; rows are told apart by the file's name, give each text one of its own");
  }
}

void check_policies(const Options& options) {
  for (const std::string& policy : options.policies) {
    try {
      if (zeromerge::Spec(policy).has("budget"))
        throw UsageError("--policy: \"" + policy + "\" has a budget; give it as --budget, for all policies");
      for (const std::string& budget : options.budgets)
        (void)zeromerge::Spec("any:budget=" + budget).budget({});
    } catch (const zeromerge::Error& error) {
      throw UsageError(std::string("--policy or --budget: ") + error.what());
    }
  }
}

// The page has a map of one run's heads; which one, and that it is among the runs.
void choose_heads(Options& options, const std::string& run) {
  if (run.empty()) {
    if (options.html.empty()) return;
    options.heads_policy = options.policies.back();
    options.heads_budget = options.budgets.front();
    return;
  }
  if (options.task != Measure::continuation)
    throw UsageError("--heads-of: only the page of --task continuation maps heads; leave it out");
  const std::size_t at = std::min(run.rfind('@'), run.size());
  options.heads_policy = run.substr(0, at);
  options.heads_budget = run.substr(std::min(at + 1, run.size()));
  const auto has = [](const std::vector<std::string>& all, const std::string& one) {
    return std::find(all.begin(), all.end(), one) != all.end();
  };
  if (!has(options.policies, options.heads_policy) || !has(options.budgets, options.heads_budget))
    throw UsageError("--heads-of: \"" + run +
                     "\" is none of the runs; give a --policy and a --budget of this call, as in \"" +
                     options.policies.back() + "@" + options.budgets.front() + "\"");
}

std::string command_line(int argc, char** argv) {
  std::string line = std::filesystem::path(argv[0]).filename().string();
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool plain = !word.empty() && word.find_first_of(" \t\n\"'\\$&|;<>()*?#~`!{}[]") == word.npos;
    line += plain ? " " + word : " '" + word + "'";
  }
  return line;
}

}  // namespace

std::variant<Options, int> parse_options(int argc, char** argv) {
  CLI::App app{
      "How far do a model's predictions move when its KV cache is compressed? Policies and budgets over "
      "texts, beside\n"
      "llama.cpp with nothing left out, on a copy of the model with weights expanded to f16."};
  Options options;
  options.model = generate::default_model();
  options.threads = static_cast<std::int32_t>(
      std::clamp(std::thread::hardware_concurrency(), 1u, static_cast<unsigned>(generate::kMostThreads)));
  options.plugin = generate::default_plugin();
  Names names;
  declare(app, options, names);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    throw UsageError(std::string(error.what()) + "\nzeromerge-evaluate --help lists the options");
  }
  if (app.count("--policy") == 0)
    if (const auto profile = generate::known_profile(options.model, generate::shipped_profiles());
        !profile.empty())
      options.policies.push_back("best:profile=" + profile.string());
  options.task = names.task == "needles"   ? Measure::needles
                 : names.task == "scbench" ? Measure::scbench
                                           : Measure::continuation;
  options.equal_bytes = names.equal == "bytes";
  options.asked_in = names.asked == "in";
  generate::check_model_and_plugin(options.model, options.plugin);
  generate::check_json(options.json);
  generate::check_written("--html", options.html);
  check_texts(options);
  check_policies(options);
  choose_heads(options, names.heads);
  options.command = command_line(argc, argv);
  return options;
}

}  // namespace evaluate
