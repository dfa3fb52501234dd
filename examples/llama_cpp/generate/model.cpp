#include "generate/model.hpp"

#include <ggml-backend.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace generate {
namespace {

bool show_warnings = false;

void log_line(ggml_log_level level, const char* text, void*) {
  static bool shown = false;  // a continuation goes where its beginning went
  if (level != GGML_LOG_LEVEL_CONT) {
    shown = level == GGML_LOG_LEVEL_ERROR || (show_warnings && level == GGML_LOG_LEVEL_WARN);
  }
  if (shown) std::fputs(text, stderr);
}

ggml_type type_named(const std::string& name) {
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const auto type = static_cast<ggml_type>(i);
    if (const char* its = ggml_type_name(type); its != nullptr && name == its) return type;
  }
  throw std::runtime_error("ggml has no type " + name);
}

llama_context_params context_parameters(const Job& job) {
  llama_context_params parameters = llama_context_default_params();
  parameters.n_ctx = static_cast<std::uint32_t>(job.ctx);
  parameters.n_batch = 2048;
  parameters.n_ubatch = static_cast<std::uint32_t>(Session::kChunk);
  parameters.n_threads = job.threads;
  parameters.n_threads_batch = job.prompt_threads;
  parameters.flash_attn_type = job.flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  parameters.type_k = type_named(job.key_type);
  parameters.type_v = type_named(job.value_type);
  parameters.n_seq_max = static_cast<std::uint32_t>(job.sequences);
  parameters.kv_unified = job.sequences > 1;
  return parameters;
}

}  // namespace

void start_llama(bool warnings) {
  show_warnings = warnings;
  llama_log_set(log_line, nullptr);
  llama_backend_init();
  ggml_backend_load_all();
}

Model::Model(const std::string& path, bool vocabulary_only) {
  llama_model_params parameters = llama_model_default_params();
  parameters.vocab_only = vocabulary_only;
  parameters.load_mode = LLAMA_LOAD_MODE_MMAP;
  parameters.n_gpu_layers = 0;
  model_.reset(llama_model_load_from_file(path.c_str(), parameters));
  if (!model_) throw std::runtime_error("llama.cpp cannot load the model " + path);
}

Tokens Model::tokenize(const std::string& text, bool whole) const {
  const llama_vocab* vocab = llama_model_get_vocab(model_.get());
  const auto length = static_cast<std::int32_t>(text.size());
  // A negative count is the room needed.
  const std::int32_t needed = -llama_tokenize(vocab, text.data(), length, nullptr, 0, whole, false);
  Tokens tokens(static_cast<std::size_t>(std::max(needed, 0)));
  if (llama_tokenize(vocab, text.data(), length, tokens.data(), needed, whole, false) != needed) {
    throw std::runtime_error("llama.cpp cannot turn the prompt into tokens");
  }
  return tokens;
}

std::string Model::piece(llama_token token) const {
  std::string text(32, '\0');
  const llama_vocab* vocab = llama_model_get_vocab(model_.get());
  auto convert = [&] {
    return llama_token_to_piece(vocab, token, text.data(), static_cast<std::int32_t>(text.size()), 0, false);
  };
  std::int32_t length = convert();
  if (length < 0) {
    text.resize(static_cast<std::size_t>(-length));
    length = convert();
  }
  text.resize(static_cast<std::size_t>(std::max(length, 0)));
  return text;
}

bool Model::ends_generation(llama_token token) const {
  return llama_vocab_is_eog(llama_model_get_vocab(model_.get()), token);
}

std::size_t Model::vocabulary() const {
  return static_cast<std::size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model_.get())));
}

std::size_t Model::kv_heads() const {
  return static_cast<std::size_t>(std::max(llama_model_n_head_kv(model_.get()), 1));
}

std::size_t Model::head_dim() const {
  const auto text = [&](const std::string& key) {
    std::array<char, 128> value{};
    const bool found = llama_model_meta_val_str(model_.get(), key.c_str(), value.data(), value.size()) >= 0;
    return std::string(found ? value.data() : "");
  };
  const std::string prefix = text("general.architecture") + ".";
  const auto number = [&](const char* key) {
    const std::string value = text(prefix + key);
    return static_cast<std::size_t>(value.empty() ? 0 : std::strtoull(value.c_str(), nullptr, 10));
  };
  if (const std::size_t length = number("attention.key_length"); length != 0) return length;
  const std::size_t width = number("embedding_length"), heads = number("attention.head_count");
  if (width == 0 || heads == 0)
    throw std::runtime_error("the model's metadata tell neither the length of its keys nor its heads");
  return width / heads;
}

Session::Session(const Model& model, const Job& job)
    : context_(llama_init_from_model(model.get(), context_parameters(job))), vocabulary_(model.vocabulary()) {
  if (!context_) {
    throw std::runtime_error("llama.cpp cannot make a context of " + std::to_string(job.ctx) + " tokens" +
                             (job.flash ? " with flash attention" : " without flash attention"));
  }
}

void Session::feed(std::span<const llama_token> tokens, bool want_logits) {
  llama_batch& batch = batch_.batch;
  batch.n_tokens = static_cast<std::int32_t>(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    batch.token[i] = tokens[i];
    batch.pos[i] = position_ + static_cast<llama_pos>(i);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = want_logits && i + 1 == tokens.size() ? 1 : 0;
  }
  if (const std::int32_t code = llama_decode(context_.get(), batch); code != 0) {
    throw std::runtime_error("llama.cpp cannot process tokens " + std::to_string(position_) + " to " +
                             std::to_string(position_ + batch.n_tokens - 1) + " (code " +
                             std::to_string(code) + ")");
  }
  llama_synchronize(context_.get());
  position_ += batch.n_tokens;
  returned_logits_.clear();
}

void Session::feed_all(std::span<const llama_token> tokens, const std::function<void(std::size_t)>& told) {
  for (std::size_t begin = 0; begin < tokens.size(); begin += kChunk) {
    const std::size_t count = std::min(kChunk, tokens.size() - begin);
    feed(tokens.subspan(begin, count), /*want_logits=*/begin + count == tokens.size());
    if (told) told(begin + count);
  }
}

Session::Place Session::place() const {
  const std::span<const float> row = logits();
  return {position_, {row.begin(), row.end()}};
}

void Session::return_to(const Place& place) {
  if (!llama_memory_seq_rm(llama_get_memory(context_.get()), 0, place.position, -1))
    throw std::runtime_error("llama.cpp cannot forget the tokens after " + std::to_string(place.position) +
                             "; does the model keep a recurrent state?");
  position_ = place.position;
  returned_logits_ = place.logits;
}

std::span<const float> Session::logits() const {
  if (!returned_logits_.empty()) return returned_logits_;
  const float* row = llama_get_logits_ith(context_.get(), -1);
  if (row == nullptr) throw std::runtime_error("llama.cpp returned no logits");
  return {row, vocabulary_};
}

// The rows of K and V that hold tokens, for every kind of architecture: what llama.cpp would write of the
// sequence, less the position, the count of sequences and the sequence's id kept with each cell (some bytes a
// layer remain).
std::uint64_t Session::cell_bytes() const {
  const std::uint64_t written = llama_state_seq_get_size(context_.get(), 0);
  const std::uint64_t bookkeeping = 12 * static_cast<std::uint64_t>(position_);
  return written - std::min(written, bookkeeping);
}

}  // namespace generate
