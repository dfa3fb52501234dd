#include "generate/checks.hpp"

#include <charconv>
#include <fstream>

#include "generate/error.hpp"
#include "generate/process.hpp"

namespace generate {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelName = "SmolLM2-135M-Instruct.Q4_1.gguf";

}  // namespace

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

fs::path shipped_profiles() {
  return (executable_path().parent_path() / ".." / "share" / "zeromerge" / "profiles").lexically_normal();
}

fs::path default_plugin() {
  return (executable_path().parent_path() / ".." / "lib" / "libggml-zeromerge.so").lexically_normal();
}

void require_file(const fs::path& path, const std::string& option, const std::string& remedy) {
  std::error_code error;
  if (!fs::exists(path, error)) throw UsageError(option + ": no file " + path.string() + "; " + remedy);
  if (fs::is_directory(path, error))
    throw UsageError(option + ": " + path.string() + " is a folder; " + remedy);
  if (!std::ifstream(path)) throw UsageError(option + ": " + path.string() + " cannot be read; " + remedy);
}

void check_model_and_plugin(const fs::path& model, const fs::path& plugin) {
  if (model.empty()) {
    throw UsageError(std::string("--model: no model given and no ") + kModelName +
                     " beside the build; give --model FILE, or let `examples/run` fetch it");
  }
  require_file(model, "--model", "give a GGUF file, or let `examples/run` fetch the default model");
  require_file(plugin, "--plugin", "build the target ggml-zeromerge, or give --plugin FILE");
}

// Tried now: a long run must not end with its figures lost. Appending nothing leaves an existing file as it
// is.
void check_written(const std::string& option, const fs::path& path) {
  if (path.empty()) return;
  const bool was_there = fs::exists(path);
  if (std::ofstream(path, std::ios::app)) {
    if (!was_there) fs::remove(path);  // a call that is refused later leaves nothing behind
    return;
  }
  throw UsageError(option + ": " + path.string() + " cannot be written; give a file in an existing folder");
}

void check_json(const fs::path& path) { check_written("--json", path); }

}  // namespace generate
