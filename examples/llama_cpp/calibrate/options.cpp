#include "calibrate/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <thread>

#include "generate/checks.hpp"
#include "generate/error.hpp"

namespace calibrate {
namespace {

void declare(CLI::App& app, Options& options) {
  app.add_option("--model", options.model, "GGUF file of the model")
      ->type_name("FILE")
      ->capture_default_str();
  app.add_option("--text", options.texts, "text files; three or four of different kinds are enough")
      ->type_name("FILE")
      ->required();
  app.add_option("--out", options.out,
                 "file to write the profile to; the programs find MODEL.profile beside MODEL.gguf")
      ->type_name("FILE")
      ->required();
  app.add_option("--budget", options.levels, "shares of the prompt to measure at, rising")
      ->check(CLI::Range(0.01, 1.0))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--prompt-tokens", options.prompt_tokens, "tokens of each text that are read")
      ->check(generate::whole_number(256, 1 << 24, "--prompt-tokens 2048"))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads; without it one per core")
      ->check(generate::whole_number(1, generate::kMostThreads, "--threads 4"))
      ->type_name("N");
  app.add_option("--plugin", options.plugin, "the plug-in")->type_name("FILE")->capture_default_str();
}

}  // namespace

std::variant<Options, int> parse_options(int argc, char** argv) {
  CLI::App app{"Measures what a model's policies can know beforehand."};
  app.require_subcommand(1);
  CLI::App& profile = *app.add_subcommand(
      "profile", "how the heads of a model share its cache, by a second reading of texts");
  Options options;
  options.model = generate::default_model();
  options.threads = static_cast<std::int32_t>(
      std::clamp(std::thread::hardware_concurrency(), 1u, static_cast<unsigned>(generate::kMostThreads)));
  options.plugin = generate::default_plugin();
  declare(profile, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    throw generate::UsageError(std::string(error.what()) +
                               "\nzeromerge-calibrate profile --help lists the options");
  }
  generate::check_model_and_plugin(options.model, options.plugin);
  generate::check_written("--out", options.out);
  for (const auto& text : options.texts) generate::require_file(text, "--text", "give an existing text file");
  if (std::adjacent_find(options.levels.begin(), options.levels.end(), std::greater_equal<>()) !=
      options.levels.end())
    throw generate::UsageError("--budget: the shares must rise, as in --budget 0.05,0.1,0.2");
  return options;
}

}  // namespace calibrate
