#include "generate/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <thread>

#include "generate/checks.hpp"
#include "generate/error.hpp"
#include "generate/known_profile.hpp"

namespace generate {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDefaultPrompt = "The printing press changed Europe because";

void declare(CLI::App& app, Options& options, std::string& compare) {
  const std::int32_t most = 1 << 24;
  app.add_option("--model", options.model, "GGUF file of the model")
      ->type_name("FILE")
      ->capture_default_str();
  app.add_option("--prompt-file", options.prompt_file, "file with the prompt, taken as plain text")
      ->type_name("FILE");
  app.add_option("--prompt", options.prompt, "the prompt itself")->type_name("TEXT")->capture_default_str();
  app.add_option("--predict", options.predict, "tokens to predict")
      ->check(whole_number(1, most, "--predict 128"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--ctx", options.ctx, "context in tokens; 0 = as long as needed")
      ->check(whole_number(0, most, "--ctx 4096, or 0 for as long as needed"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads; without it one per core")
      ->check(whole_number(1, kMostThreads, "--threads 4"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--prompt-threads", options.prompt_threads,
                 "threads for the prompt; 0 = as many as --threads")
      ->check(whole_number(0, kMostThreads, "--prompt-threads 4, or 0 for as many as --threads"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option(
         "--policy", options.policy,
         "compression policy, preset:key=value,...; without it best, with the head profile that is known "
         "for the model")
      ->type_name("SPEC")
      ->capture_default_str();
  app.add_option(
         "--compare", compare,
         "none, or full: against the full cache and plain llama.cpp, in speed, memory and predictions")
      ->check(CLI::Validator(
          [](std::string& text) -> std::string {
            if (text == "none" || text == "full") return {};
            return "\"" + text + "\" is no kind of comparison; give --compare full or --compare none";
          },
          ""))
      ->type_name("full|none")
      ->capture_default_str();
  app.add_flag("--reclaim", options.reclaim,
               "give the memory of cells held in compressed form back to the system");
  app.add_option("--json", options.json, "file to write the figures to")->type_name("FILE");
  app.add_option("--plugin", options.plugin, "the plug-in")->type_name("FILE")->capture_default_str();
}

void check_prompt(Options& options, bool prompt_given) {
  if (!options.prompt_file.empty() && prompt_given) {
    throw UsageError("--prompt and --prompt-file were both given; give one of them");
  }
  if (options.prompt_file.empty()) {
    if (options.prompt.empty()) throw UsageError("--prompt: \"\" is empty; give it some text");
    return;
  }
  require_file(options.prompt_file, "--prompt-file", "give an existing text file");
  if (fs::is_regular_file(options.prompt_file) && fs::file_size(options.prompt_file) == 0) {
    throw UsageError("--prompt-file: " + options.prompt_file.string() +
                     " is empty; give a file with some text");
  }
}

void check_files(Options& options, bool prompt_given) {
  check_model_and_plugin(options.model, options.plugin);
  if (options.policy.empty())
    throw UsageError("--policy: \"\" is empty; give for example --policy best:budget=5%");
  check_prompt(options, prompt_given);
  check_json(options.json);
}

}  // namespace

std::variant<Options, int> parse_options(int argc, char** argv) {
  CLI::App app{
      "Continues a prompt with llama.cpp while its KV cache is compressed by zeromerge, and measures both."};
  Options options;
  options.model = default_model();
  options.prompt = kDefaultPrompt;
  options.threads = static_cast<std::int32_t>(
      std::clamp(std::thread::hardware_concurrency(), 1u, static_cast<unsigned>(kMostThreads)));
  options.policy = default_policy({});
  options.plugin = default_plugin();
  std::string compare = "none";
  declare(app, options, compare);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    throw UsageError(std::string(error.what()) + "\nzeromerge-generate --help lists the options");
  }
  if (app.count("--policy") == 0)
    options.policy = default_policy(known_profile(options.model, shipped_profiles()));
  if (options.prompt_threads == 0) options.prompt_threads = options.threads;
  options.compare = compare == "full";
  check_files(options, app.count("--prompt") > 0);
  return options;
}

}  // namespace generate
