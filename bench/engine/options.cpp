#include "engine/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <regex>

#include "engine/contenders.hpp"
#include "generate/checks.hpp"
#include "generate/error.hpp"
#include "support/machine.hpp"

namespace bench {
namespace {

using generate::kMostThreads;
using generate::whole_number;

constexpr std::int32_t kMostTokens = 1 << 24;

// Fullness beyond that is the policy "full", which is measured anyway.
CLI::Validator budget() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        std::smatch parts;
        const std::regex form(R"((\d{1,8}(?:\.\d{1,6})?)(%?))");
        if (std::regex_match(text, parts, form)) {
          const double amount = std::stod(parts[1]);
          const bool share = parts[2] == "%";
          if (share ? amount > 0 && amount < 100
                    : amount >= 1 && parts[1].str().find('.') == std::string::npos)
            return {};
        }
        return "\"" + text + "\" is neither a share below 100% nor a number of entries; give for example " +
               "--budgets 5%,10% or --budgets 416";
      },
      "");
}

CLI::Validator one_of(const std::vector<std::string>& names, const std::string& option) {
  return CLI::Validator(
      [=](std::string& text) -> std::string {
        if (std::find(names.begin(), names.end(), text) != names.end()) return {};
        std::string all;
        for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
        return "\"" + text + "\" is none of " + all + "; give for example " + option + " " + names.back();
      },
      "");
}

CLI::Validator rival() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        const std::size_t equals = text.find('=');
        if (equals != 0 && equals != std::string::npos && equals + 1 < text.size()) return {};
        return "\"" + text + "\" is not NAME=COMMAND";
      },
      "");
}

void declare_common(CLI::App& app, Options& options) {
  app.add_option("--model", options.model, "GGUF file of the model")
      ->type_name("FILE")
      ->capture_default_str();
  app.add_option("--plugin", options.plugin, "the plug-in")->type_name("FILE")->capture_default_str();
  app.add_option("--json", options.json, "file to write the figures to")->type_name("FILE");
  app.add_option("--contexts", options.contexts, "tokens in the cache")
      ->delimiter(',')
      ->check(whole_number(1, kMostTokens, "--contexts 2048,8192"))
      ->type_name("N,...")
      ->capture_default_str();
  app.add_option("--budgets", options.budgets, "of the policy zeromerge: shares or numbers of entries")
      ->delimiter(',')
      ->check(budget())
      ->type_name("N%|N,...")
      ->capture_default_str();
  app.add_option("--policy", options.policies, "another policy to measure; may be given several times")
      ->type_name("SPEC");
  app.add_option("--settings", options.settings, "of plain llama.cpp, besides flash-f16")
      ->delimiter(',')
      ->check(one_of(setting_names(), "--settings"))
      ->type_name("NAME,...")
      ->capture_default_str();
  app.add_option("--predict", options.predict, "decode steps timed at once")
      ->check(whole_number(1, kMostTokens, "--predict 16"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads that decode")
      ->check(whole_number(1, kMostThreads, "--threads 1"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--prompt-threads", options.prompt_threads,
                 "threads for the prompt; 0 = as many as --threads")
      ->check(whole_number(0, kMostThreads, "--prompt-threads 2"))
      ->type_name("N")
      ->capture_default_str();
}

void declare_engine(CLI::App& app, Options& options, std::string& depth) {
  app.add_option("--repetitions", options.repetitions, "rounds over all contenders")
      ->check(whole_number(1, 10000, "--repetitions 5"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--depth", depth,
                 "how the cache is filled: copied from 512 computed tokens (seconds) or computed (minutes)")
      ->check(one_of({"computed", "copied"}, "--depth"))
      ->type_name("copied|computed")
      ->capture_default_str();
  app.add_option("--rival", options.rivals, "a program that answers as bench/engine/child.hpp says")
      ->check(rival())
      ->type_name("NAME=COMMAND");
  app.add_option("--empty-rival", options.empty_rivals, "the same with nothing in its cache: its own limit")
      ->check(rival())
      ->type_name("NAME=COMMAND");
}

template <class T>
void sort_and_deduplicate(std::vector<T>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

}  // namespace

std::variant<Options, int> parse_options(Kind kind, int argc, char** argv) {
  const bool engine = kind == Kind::engine;
  CLI::App app{engine ? "Decode speed at depth: llama.cpp with the plug-in beside plain llama.cpp."
                      : "Memory over a prompt: llama.cpp with the plug-in beside plain llama.cpp."};
  Options options;
  options.model = generate::default_model();
  options.plugin = generate::default_plugin();
  options.contexts =
      engine ? std::vector<std::int32_t>{2048, 8192, 16384, 32768} : std::vector<std::int32_t>{2048, 8192};
  options.settings = setting_names();
  std::string depth = "copied";
  declare_common(app, options);
  if (engine) declare_engine(app, options, depth);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    throw generate::UsageError(std::string(error.what()) + "\n--help lists the options");
  }
  options.copied = depth == "copied";
  if (options.prompt_threads == 0) options.prompt_threads = options.threads;
  sort_and_deduplicate(options.contexts);
  generate::check_model_and_plugin(options.model, options.plugin);
  generate::check_json(options.json);
  return options;
}

Json describe_run(const Options& options) {
  Json machine = describe_machine();
  machine["threads"] = options.threads;
  machine["prompt_threads"] = options.prompt_threads;
  machine["model"] = options.model.filename().string();
  return machine;
}

}  // namespace bench
