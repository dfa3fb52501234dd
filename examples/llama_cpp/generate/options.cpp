#include "generate/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <fstream>
#include <thread>

#include "generate/error.hpp"
#include "generate/process.hpp"

namespace generate {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelName = "SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr const char* kDefaultPrompt = "The printing press changed Europe because";
constexpr std::int32_t kMostThreads = 512;  // ggml's own limit

// A whole number in [low, high]; the message names the value and what would do.
CLI::Validator whole_number(std::int32_t low, std::int32_t high, const std::string& example) {
  return CLI::Validator(
      [=](std::string& text) -> std::string {
        std::int32_t value = 0;
        const char* end = text.data() + text.size();
        const auto [stop, error] = std::from_chars(text.data(), end, value);
        if (error == std::errc() && stop == end && value >= low && value <= high) return {};
        return "\"" + text + "\" is not a whole number from " + std::to_string(low) + " to " +
               std::to_string(high) + "; give for example " + example;
      },
      "");
}

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
  app.add_option("--policy", options.policy, "compression policy, preset:key=value,...")
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

// Where `examples/run` leaves the model: beside the build's other products, or one folder above, shared by
// all builds.
fs::path default_model() {
  const fs::path beside = executable_path().parent_path() / ".." / "models" / kModelName;
  const fs::path above = executable_path().parent_path() / ".." / ".." / "models" / kModelName;
  for (const fs::path& path : {beside, above}) {
    if (fs::exists(path)) return path.lexically_normal();
  }
  return {};
}

void require_file(const fs::path& path, const std::string& option, const std::string& remedy) {
  std::error_code error;
  if (!fs::exists(path, error)) throw UsageError(option + ": no file " + path.string() + "; " + remedy);
  if (fs::is_directory(path, error))
    throw UsageError(option + ": " + path.string() + " is a folder; " + remedy);
  if (!std::ifstream(path)) throw UsageError(option + ": " + path.string() + " cannot be read; " + remedy);
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

// Tried now: a long run must not end with its figures lost. Appending nothing leaves an existing file as it
// is.
void check_json(const fs::path& path) {
  if (path.empty() || std::ofstream(path, std::ios::app)) return;
  throw UsageError("--json: " + path.string() + " cannot be written; give a file in an existing folder");
}

void check_files(Options& options, bool prompt_given) {
  if (options.model.empty()) {
    throw UsageError(std::string("--model: no model given and no ") + kModelName +
                     " beside the build; give --model FILE, or let `examples/run` fetch it");
  }
  require_file(options.model, "--model", "give a GGUF file, or let `examples/run` fetch the default model");
  require_file(options.plugin, "--plugin", "build the target ggml-zeromerge, or give --plugin FILE");
  if (options.policy.empty())
    throw UsageError("--policy: \"\" is empty; give for example --policy zeromerge:budget=5%");
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
  options.policy = "zeromerge:budget=5%";
  options.plugin =
      (executable_path().parent_path() / ".." / "lib" / "libggml-zeromerge.so").lexically_normal();
  std::string compare = "none";
  declare(app, options, compare);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    throw UsageError(std::string(error.what()) + "\nzeromerge-generate --help lists the options");
  }
  if (options.prompt_threads == 0) options.prompt_threads = options.threads;
  options.compare = compare == "full";
  check_files(options, app.count("--prompt") > 0);
  return options;
}

}  // namespace generate
