#include "step_overhead/steps.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "support/pool.hpp"

namespace bench {
namespace {

using zeromerge::rows;

constexpr std::size_t kNumbers = 1 << 16;  // different ones, used again and again
// A full turn of what fills up only while decoding: a group of 32 entries that 4 bits pack together.
constexpr std::size_t kSettling = 40;
// Tokens at a prompt's end that come with their queries, for policies that ask them.
constexpr std::size_t kAsked = 32;

}  // namespace

Steps::Steps(const Shape& shape, const std::string& policy, std::size_t budget, bool warm,
             std::size_t threads)
    : shape_(shape),
      numbers_(random_numbers(kNumbers + shape.query_heads * shape.head_dim, 4)),
      out_(shape.query_heads * shape.head_dim) {
  const std::string spec =
      policy + (policy.find(':') == std::string::npos ? ":" : ",") + "budget=" + std::to_string(budget);
  const std::size_t bytes = make(spec, budget, 1, threads);
  if (!warm) make(spec, budget, cold_layers(bytes), threads);
}

void Steps::pair() {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  decode();
  const auto middle = Clock::now();
  attend();
  const auto end = Clock::now();
  step_seconds_.push_back(std::chrono::duration<float>(middle - begin).count());
  attention_seconds_.push_back(std::chrono::duration<float>(end - middle).count());
}

Steps::Medians Steps::medians() const {
  const auto median = [](std::vector<float> x) {
    if (x.empty()) return 0.0;
    const auto at = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
    std::nth_element(x.begin(), at, x.end());
    return static_cast<double>(*at);
  };
  return {median(step_seconds_), median(attention_seconds_)};
}

void Steps::decode() {
  const auto& [query_heads, kv_heads, dim] = shape_;
  const float* q = fresh(query_heads);
  const float* k = fresh(kv_heads);
  const float* v = fresh(kv_heads);
  next().decode(rows(q, 1, query_heads, dim), rows(k, 1, kv_heads, dim), rows(v, 1, kv_heads, dim), out());
}

void Steps::attend() {
  next().attend(rows(fresh(shape_.query_heads), 1, shape_.query_heads, shape_.head_dim), out());
}

std::size_t Steps::make(const std::string& spec, std::size_t budget, std::size_t layers,
                        std::size_t threads) {
  const std::size_t tokens = budget + budget / 4;
  const auto& [query_heads, kv_heads, dim] = shape_;
  const std::vector<float> k = random_numbers(tokens * kv_heads * dim, 2);
  const std::vector<float> v = random_numbers(tokens * kv_heads * dim, 3);
  zeromerge::Geometry g;
  g.layers = layers;
  g.query_heads = query_heads;
  g.kv_heads = kv_heads;
  g.head_dim = dim;
  zeromerge::CacheOptions options{.executor = executor_of(threads)};
  options.rope = std::make_shared<zeromerge::Rope>(zeromerge::RopeParams{.dims = dim}, dim);
  cache_ = zeromerge::make_cache(spec, g, std::move(options));
  const std::vector<float> q = random_numbers(kAsked * query_heads * dim, 5);
  std::vector<float> out(q.size());
  const auto k_rows = rows(k.data(), tokens, kv_heads, dim), v_rows = rows(v.data(), tokens, kv_heads, dim);
  for (std::size_t l = 0; l < layers; ++l) {
    auto& layer = cache_->layer(l);
    layer.extend(k_rows.slice(0, tokens - kAsked), v_rows.slice(0, tokens - kAsked));
    layer.prefill(rows(q.data(), kAsked, query_heads, dim), k_rows.slice(tokens - kAsked, kAsked),
                  v_rows.slice(tokens - kAsked, kAsked),
                  zeromerge::out_rows(out.data(), kAsked, query_heads, dim));
  }
  cache_->finish_prompt();
  layer_ = 0;
  for (std::size_t i = 0; i < kSettling * layers; ++i) decode();
  return cache_->layer(0).bytes();
}

const float* Steps::fresh(std::size_t heads) {
  const float* at = numbers_.data() + at_;
  at_ = (at_ + heads * shape_.head_dim) % kNumbers;
  return at;
}

zeromerge::AnyLayer& Steps::next() {
  layer_ = (layer_ + 1) % cache_->geometry().layers;
  return cache_->layer(layer_);
}

zeromerge::OutView Steps::out() {
  return zeromerge::out_rows(out_.data(), 1, shape_.query_heads, shape_.head_dim);
}

}  // namespace bench
