#include "generate/worker.hpp"

#include <array>
#include <exception>
#include <fstream>
#include <sstream>

#include "generate/ask.hpp"
#include "generate/error.hpp"
#include "generate/run.hpp"
#include "generate/second_reading.hpp"
#include "zeromerge/cache/preset_table.hpp"

namespace generate {
namespace {

using nlohmann::json;

std::string read_text(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) throw UsageError("--prompt-file: " + path + " cannot be read");
  return text.str();
}

// From the metadata: llama_model_ftype() knows it only of a model whose weights are loaded.
bool has_exact_weights(const Model& model) {
  std::array<char, 32> type{};
  if (llama_model_meta_val_str(model.get(), "general.file_type", type.data(), type.size()) < 0) return false;
  return type.data() == std::to_string(LLAMA_FTYPE_ALL_F32) ||
         type.data() == std::to_string(LLAMA_FTYPE_MOSTLY_F16);
}

Model open_vocabulary(const Job& job) {
  try {
    return Model(job.model, /*vocabulary_only=*/true);
  } catch (const std::exception& error) {
    throw UsageError(std::string("--model: ") + error.what() + "; give a GGUF file of a text model");
  }
}

json inspect(const Job& job) {
  const Model model = open_vocabulary(job);
  const Tokens tokens = model.tokenize(read_text(job.prompt_file));
  if (tokens.empty()) throw UsageError("the prompt holds no token; give it some text");
  return {{"tokens", tokens}, {"exact_weights", has_exact_weights(model)}, {"head_dim", model.head_dim()}};
}

// `begin`: what a whole text starts with, where the model wants that. `sizes`: of every token, in bytes.
json tokenize(const Job& job) {
  const Model model = open_vocabulary(job);
  json tokens = json::array(), sizes = json::array();
  for (const std::string& text : job.texts) {
    tokens.push_back(model.tokenize(text, /*whole=*/false));
    sizes.push_back(json::array());
    for (const llama_token token : tokens.back()) sizes.back().push_back(model.piece(token).size());
  }
  return {{"begin", model.tokenize("")},
          {"tokens", tokens},
          {"sizes", sizes},
          {"exact_weights", has_exact_weights(model)},
          {"head_dim", model.head_dim()}};
}

json expand(const Job& job) {
  llama_model_quantize_params parameters = llama_model_quantize_default_params();
  parameters.ftype = LLAMA_FTYPE_MOSTLY_F16;
  parameters.allow_requantize = true;
  parameters.nthread = job.prompt_threads;
  if (llama_model_quantize(job.model.c_str(), job.output_file.c_str(), &parameters) != 0) {
    throw std::runtime_error("llama.cpp cannot write the copy with f16 weights to " + job.output_file);
  }
  return json::object();
}

json perform(const Job& job) {
  start_llama(job.warnings);
  std::optional<Plugin> plugin;
  if (!job.policy.empty()) plugin.emplace().configure(job.policy, job.reclaim);
  switch (job.task) {
    case Task::inspect:
      return inspect(job);
    case Task::tokenize:
      return tokenize(job);
    case Task::expand:
      return expand(job);
    case Task::speed:
      return run_speed(job, plugin);
    case Task::reference:
      return run_reference(job);
    case Task::compare:
      return run_compare(job, plugin);
    case Task::ask:
      return run_ask(job, plugin);
    case Task::heads:
      return run_heads(job, plugin);
  }
  throw std::logic_error("a job without a task");
}

}  // namespace

int worker_main(const char* job_file, const char* result_file) {
  json result;
  try {
    std::ifstream stream(job_file);
    Job job = json::parse(stream).get<Job>();
    if (!job.policy.empty() && zeromerge::needs_second_reading(job.policy)) job.ctx += kReadAgain;
    result = perform(job);
  } catch (const UsageError& error) {
    result = {{"error", error.what()}, {"usage", true}};
  } catch (const std::exception& error) {
    result = {{"error", error.what()}, {"usage", false}};
  }
  // A text cut inside a character is not valid UTF-8; the stray bytes become the replacement character.
  std::ofstream(result_file) << result.dump(-1, ' ', false, json::error_handler_t::replace);
  return result.contains("error") ? 1 : 0;
}

}  // namespace generate
