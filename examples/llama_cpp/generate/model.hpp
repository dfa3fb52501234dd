// llama.cpp's objects with owners, and the few calls made on them.
#pragma once

#include <llama.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generate/job.hpp"

namespace generate {

using Tokens = std::vector<llama_token>;

// Before anything else in a process: the log to stderr cut to errors (and warnings), then the backends, the
// one named by GGML_BACKEND_PATH among them.
void start_llama(bool warnings);

class Model {
 public:
  Model(const std::string& path, bool vocabulary_only);

  llama_model* get() const { return model_.get(); }
  // A whole text, with the tokens that the model wants around one, or a part of one, with none.
  Tokens tokenize(const std::string& text, bool whole = true) const;
  std::string piece(llama_token token) const;
  bool ends_generation(llama_token token) const;
  std::size_t vocabulary() const;
  std::size_t kv_heads() const;  // of a layer
  std::size_t head_dim()
      const;  // of keys, from the metadata, so a vocabulary alone knows it; throws if they lack it

 private:
  struct Free {
    void operator()(llama_model* model) const { llama_model_free(model); }
  };
  std::unique_ptr<llama_model, Free> model_;
};

// One sequence in one context. Both calls return the logits after their last token, valid until the next
// call.
class Session {
 public:
  Session(const Model& model, const Job& job);

  // Up to this many tokens a call: what llama.cpp computes at once, and how often progress can be told.
  static constexpr std::size_t kChunk = 512;
  void feed(std::span<const llama_token> tokens, bool want_logits);
  // Any number of tokens, in chunks, with the logits after the last; told how many are done after each.
  void feed_all(std::span<const llama_token> tokens, const std::function<void(std::size_t)>& told = {});
  std::span<const float> logits() const;

  // Where the session is, and back to it: what came after is forgotten, and logits() are those of then. A
  // plug-in's caches go back by themselves (Plugin::rollback).
  struct Place {
    llama_pos position;
    std::vector<float> logits;
  };
  Place place() const;
  void return_to(const Place& place);

  std::uint64_t cell_bytes() const;

  // For a past that comes by other ways than feed(): the context, and how many tokens it holds now.
  llama_context* context() const { return context_.get(); }
  void set_position(llama_pos position) { position_ = position; }
  llama_pos position() const { return position_; }

 private:
  struct Free {
    void operator()(llama_context* context) const { llama_free(context); }
  };
  struct Batch {
    llama_batch batch = llama_batch_init(static_cast<std::int32_t>(kChunk), 0, 1);
    Batch() = default;
    ~Batch() { llama_batch_free(batch); }
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;
  };
  std::unique_ptr<llama_context, Free> context_;
  Batch batch_;
  std::size_t vocabulary_;
  llama_pos position_ = 0;
  std::vector<float> returned_logits_;  // of the place returned to, until the next token
};

}  // namespace generate
