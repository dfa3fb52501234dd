// A head of the device cache, copied to the host and widened: for tests, statistics and looking into.
#pragma once

#include <cstddef>
#include <vector>

#include "zeromerge/cuda/rule.hpp"
#include "zeromerge/cuda/slab.hpp"

namespace zeromerge::cuda {

struct HeadCopy {
  HeadState state{};
  std::vector<float> keys, values;  // [entries][head_dim]
  std::vector<float> score, mass;   // [entries]; what a policy does not keep reads as 0 (mass: 1)
  std::vector<std::uint32_t> position;

  std::size_t entries() const noexcept { return position.size(); }
};

namespace detail {

inline std::vector<float> copy_floats(const float* from, std::size_t n, float otherwise, Stream stream) {
  std::vector<float> to(n, otherwise);
  if (from != nullptr && n != 0) copy_out(to.data(), from, n * sizeof(float), stream);
  return to;
}

// What one stored channel stands for.
inline float widen_stored(const unsigned char* row, StorageType type, std::size_t d, float scale) {
  if (type == StorageType::q8) return scale * static_cast<float>(static_cast<std::int8_t>(row[d]));
  const auto bits = static_cast<std::uint16_t>(row[2 * d] | row[2 * d + 1] << 8);
  return type == StorageType::f16 ? to_f32(f16{bits}) : to_f32(bf16{bits});
}

inline std::vector<float> copy_rows(const void* from, const float* scales, StorageType type, std::size_t n,
                                    std::size_t head_dim, Stream stream) {
  const std::size_t row = row_form(type, head_dim).bytes;
  std::vector<unsigned char> bytes(n * row);
  if (n != 0) copy_out(bytes.data(), from, bytes.size(), stream);
  const std::vector<float> scale = copy_floats(scales, n, 1.0f, stream);
  synchronise(stream);
  std::vector<float> to(n * head_dim);
  for (std::size_t i = 0; i < to.size(); ++i)
    to[i] = widen_stored(bytes.data() + i / head_dim * row, type, i % head_dim, scale[i / head_dim]);
  return to;
}

}  // namespace detail

inline HeadCopy copy_head(const HeadRows& head, const HeadState& state, const DevicePolicy& policy,
                          std::size_t head_dim, Stream stream) {
  const std::size_t n = state.size;
  HeadCopy copy;
  copy.state = state;
  copy.score = detail::copy_floats(head.score, n, 0.0f, stream);
  copy.mass = detail::copy_floats(head.mass, n, 1.0f, stream);
  copy.position.resize(n);
  if (n != 0) copy_out(copy.position.data(), head.position, n * sizeof(std::uint32_t), stream);
  copy.keys = detail::copy_rows(head.keys, head.key_scale, policy.key_type, n, head_dim, stream);
  copy.values = detail::copy_rows(head.values, head.value_scale, policy.value_type, n, head_dim, stream);
  return copy;  // copy_rows has waited
}

}  // namespace zeromerge::cuda
