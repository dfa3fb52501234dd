// How an engine uses the cache on a device: requests with prompts of different lengths decode side by side,
// every token by one replay of a captured graph. Random numbers stand for what a model computes; what
// concerns the cache is in serve(). Compiled by nvcc (ZEROMERGE_CUDA); cuda::Stream is cudaStream_t.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <string>
#include <vector>

#include "zeromerge/cuda/make_cache.hpp"

using namespace zeromerge;

const Geometry kModel{.layers = 2, .query_heads = 8, .kv_heads = 2, .head_dim = 64};
constexpr std::size_t kPrompts[] = {200, 64, 130};  // tokens of each request
constexpr std::size_t kRequests = std::size(kPrompts);

// Where a layer's queries, keys and values come to lie and its attention goes: [tokens][heads][head_dim]
// each.
struct LayerBuffers {
  std::size_t tokens;
  cuda::Buffer<float> q, k, v, out;

  explicit LayerBuffers(std::size_t n)
      : tokens(n),
        q(n * kModel.query_heads * kModel.head_dim),
        k(n * kModel.kv_heads * kModel.head_dim),
        v(n * kModel.kv_heads * kModel.head_dim),
        out(n * kModel.query_heads * kModel.head_dim) {}
  RowView queries() const { return rows(q.data(), tokens, kModel.query_heads, kModel.head_dim); }
  RowView keys() const { return rows(k.data(), tokens, kModel.kv_heads, kModel.head_dim); }
  RowView values() const { return rows(v.data(), tokens, kModel.kv_heads, kModel.head_dim); }
  cuda::OutRows attention() const {
    return cuda::out_rows(out.data(), tokens, kModel.query_heads, kModel.head_dim);
  }

  // In place of the model: new numbers at the same addresses.
  void compute(cuda::Stream stream) const {
    static std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (const auto* to : {&q, &k, &v}) {
      std::vector<float> x(to->size());
      for (float& y : x) y = normal(random);
      cuda::copy_in(to->data(), x.data(), to->bytes(), stream);
      cuda::synchronise(stream);
    }
  }
};

void serve(const std::string& policy, std::size_t steps) {
  const cuda::OwnedStream stream;
  const auto cache = cuda::make_cache(policy, kModel, {.sequences = kRequests, .longest = 512});

  for (std::size_t request = 0; request < kRequests; ++request) {
    const LayerBuffers prompt(kPrompts[request]);
    for (std::size_t l = 0; l < kModel.layers; ++l) {
      prompt.compute(stream);
      cache->prefill(l, request, prompt.queries(), prompt.keys(), prompt.values(), prompt.attention(),
                     stream);
    }
    cache->finish_prompt(request, stream);
  }
  const std::size_t held = cache->bytes().held;

  std::vector<LayerBuffers> token;
  for (std::size_t l = 0; l < kModel.layers; ++l) token.emplace_back(kRequests);
  const cuda::Batch batch = cache->batch({0, 1, 2}, stream);  // row r of the buffers: request r
  const cuda::Graph step = cuda::capture(stream, [&] {
    for (std::size_t l = 0; l < kModel.layers; ++l)
      cache->decode(l, batch, token[l].queries(), token[l].keys(), token[l].values(), token[l].attention(),
                    stream);
  });
  for (std::size_t i = 0; i < steps; ++i) {
    for (const LayerBuffers& layer : token) layer.compute(stream);
    step.replay(stream);
  }

  std::printf("%s: %zu bytes after the prompts, %zu after %zu steps; entries of a head:", policy.c_str(),
              held, cache->bytes().held, steps);
  for (std::size_t request = 0; request < kRequests; ++request)
    std::printf(" %zu", cache->head(0, request, 0, stream).entries());
  std::printf("\n");
}

int main(int argc, char** argv) {
  try {
    if (const std::string reason = cuda::why_no_device(); !reason.empty()) {
      std::fprintf(stderr, "no CUDA device: %s\n", reason.c_str());
      return 1;
    }
    const std::size_t steps = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 64;
    for (const char* policy : {"full", "zeromerge:budget=25%", "zeromerge:budget=25%,storage=q8"})
      serve(policy, steps);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
