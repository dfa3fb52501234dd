// The problem that all contenders of a bench solve, and its data.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

// Attention of one layer.
struct Shape {
  std::size_t query_heads;
  std::size_t kv_heads;
  std::size_t head_dim;

  std::string text() const {
    return std::to_string(query_heads) + "/" + std::to_string(kv_heads) + "x" + std::to_string(head_dim);
  }
  // Of one query row over `entries` entries: a multiplication and an addition for K and for V.
  double flops(double entries) const {
    return 4.0 * entries * static_cast<double>(query_heads) * static_cast<double>(head_dim);
  }
};

// SmolLM2, Llama 3 8B, Llama 2 7B, Gemma 3 270M.
inline const std::vector<Shape> kShapes = {{9, 3, 64}, {32, 8, 128}, {32, 32, 128}, {4, 1, 256}};

// The smallest set of layers that no near cache holds: what a model sees that walks through its layers.
inline constexpr std::size_t kColdBytes = std::size_t{192} << 20;
inline std::size_t cold_layers(std::size_t layer_bytes) { return kColdBytes / layer_bytes + 1; }

// Numbers of about unit variance, the same for the same seed.
inline std::vector<float> random_numbers(std::size_t n, std::uint64_t seed) {
  std::vector<float> x(n);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (float& value : x) {
    float sum = 0.0f;  // of four uniform numbers in [-1/2, 1/2]
    for (int i = 0; i < 4; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sum += static_cast<float>(state >> 40) * 0x1p-24f - 0.5f;
    }
    value = 1.732f * sum;
  }
  return x;
}

}  // namespace bench
