// llama.cpp's attention of one layer on its own CPU kernels: the same keys, values and queries, in the
// layouts it knows.
#pragma once

#include <ggml-cpu.h>
#include <ggml.h>

#include <memory>
#include <string>
#include <vector>

#include "support/memory.hpp"
#include "support/shapes.hpp"

namespace bench {

// How ggml is asked, and how its cache lies.
enum class PeerForm {
  token_major,  // flash attention over [tokens][heads][dim], llama.cpp's cache
  head_major,   // flash attention over [heads][tokens][dim]
  plain         // two products and a softmax, values transposed
};

// Its type for what the library stores as "f32", "f16", "bf16", "q8" or "q4": of the first three its f16.
ggml_type stored_like(const std::string& type);

struct PeerProblem {
  Shape shape;
  std::size_t entries;  // in the cache, those of the queries included
  std::size_t tokens;   // query tokens, the last ones; each sees itself and what is before it
  const float* q;       // [tokens][query_heads][head_dim]
  const float* k;       // [entries][kv_heads][head_dim]
  const float* v;       // likewise
};

class GgmlPeer {
 public:
  // `layers` copies of the same data, computed in rotation.
  GgmlPeer(const PeerProblem& problem, PeerForm form, ggml_type type, std::size_t layers, int threads);
  ~GgmlPeer();
  GgmlPeer(const GgmlPeer&) = delete;
  GgmlPeer& operator=(const GgmlPeer&) = delete;

  void step();
  // Of the last step: [tokens][query_heads][head_dim].
  std::vector<float> output() const;

 private:
  struct Layer {
    ggml_cgraph* graph;
    ggml_tensor* k;  // what is stored
    ggml_tensor* v;
    ggml_tensor* out;
  };
  ggml_tensor* cache(const float* rows, ggml_type type, bool by_head, ggml_tensor* same);
  ggml_tensor* transposed_values(const float* rows, ggml_tensor* same);
  Layer build(PeerForm form, ggml_type type);

  PeerProblem problem_;
  PeerForm form_;
  HugePages memory_;
  ggml_context* context_;
  ggml_tensor* q_;
  ggml_tensor* mask_;
  std::vector<Layer> layers_;
  ggml_threadpool* pool_;
  ggml_cplan plan_;
  std::vector<std::uint8_t> work_;
  std::size_t next_ = 0;
  std::size_t last_ = 0;
};

// Throws std::runtime_error unless `ours` and `theirs`, for the same problem stored as `type`, differ by no
// more than storing and summing so explains: what is timed must be the same work.
void check_same(const float* ours, const std::vector<float>& theirs, const std::string& type);

}  // namespace bench
