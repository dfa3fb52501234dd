// Heads on the device as kernels see them (kernels/cuda/layout.hpp), made of plain rows, and read back.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "support/device.hpp"
#include "support/random.hpp"
#include "zeromerge/cuda/decode_step.hpp"

namespace zeromerge::test {

// A row as it is stored, and back; q8 with its scale.
template <class T>
std::vector<unsigned char> encoded(const std::vector<float>& row, float* scale) {
  std::vector<unsigned char> bytes(cuda::row_bytes<T>(static_cast<unsigned>(row.size())), 0);
  float largest = 0.0f;
  for (const float x : row) largest = std::max(largest, std::abs(x));
  if constexpr (cuda::has_scale<T>) *scale = largest / 127.0f;
  for (std::size_t d = 0; d < row.size(); ++d) {
    if constexpr (cuda::has_scale<T>) {
      const float q = largest > 0.0f ? std::nearbyint(row[d] / *scale) : 0.0f;
      bytes[d] = static_cast<unsigned char>(static_cast<std::int8_t>(q));
    } else {
      const T x = from_f32<T>(row[d]);
      std::memcpy(bytes.data() + 2 * d, &x, 2);
    }
  }
  return bytes;
}
template <class T>
std::vector<float> decoded(const unsigned char* bytes, float scale, std::size_t head_dim) {
  std::vector<float> row(head_dim);
  for (std::size_t d = 0; d < head_dim; ++d) {
    if constexpr (cuda::has_scale<T>) {
      row[d] = static_cast<float>(static_cast<std::int8_t>(bytes[d])) * scale;
    } else {
      T x;
      std::memcpy(&x, bytes + 2 * d, 2);
      row[d] = to_f32(x);
    }
  }
  return row;
}

// One head on the host. Rows as given; bias, mass and score may be empty.
struct PlainHead {
  std::vector<std::vector<float>> keys, values;  // [entries][head_dim]
  std::vector<float> score, mass, bias;          // [entries]
  std::vector<std::uint32_t> position;           // [entries]
  cuda::HeadState state = {};

  std::size_t size() const { return keys.size(); }
};

inline PlainHead random_head(Random& random, std::size_t entries, std::size_t head_dim, bool fields) {
  PlainHead head;
  for (std::size_t j = 0; j < entries; ++j) {
    head.keys.push_back(normals(random, head_dim));
    head.values.push_back(normals(random, head_dim));
    head.position.push_back(static_cast<std::uint32_t>(j));
    if (!fields) continue;
    head.score.push_back(static_cast<float>(random.uniform()));
    head.mass.push_back(static_cast<float>(random.between(1, 50)));
    head.bias.push_back(0.6f * std::log(head.mass.back()));
  }
  head.state.size = head.state.tokens = static_cast<std::uint32_t>(entries);
  head.state.capacity = cuda::kKeepsAll;
  return head;
}

// K, V: how entries are stored. Rooms are exact, so that the emulation sees whoever goes beyond one.
template <class K, class V = K>
class DeviceHeads {
 public:
  // fields: there are scores, masses and biases; spare: room beyond what each head holds.
  DeviceHeads(const std::vector<PlainHead>& heads, std::size_t head_dim, bool scores, bool masses,
              std::size_t spare = 1)
      : head_dim_(head_dim), scores_(scores), masses_(masses) {
    for (const PlainHead& head : heads) add(head, head.size() + spare);
    std::vector<cuda::HeadRows> rows;
    std::vector<cuda::HeadState> states;
    for (std::size_t h = 0; h < heads.size(); ++h) {
      rows.push_back(heads_[h].rows());
      states.push_back(heads[h].state);
    }
    rows_ = uploaded(rows);
    states_ = uploaded(states);
  }

  const cuda::HeadRows* rows() const { return rows_.data(); }
  cuda::HeadState* states() const { return states_.data(); }

  // What the device holds now, values as they are stored.
  std::vector<PlainHead> read() const {
    const std::vector<cuda::HeadState> states = downloaded(states_);
    std::vector<PlainHead> all;
    for (std::size_t h = 0; h < heads_.size(); ++h) all.push_back(read(heads_[h], states[h]));
    return all;
  }

 private:
  struct Held {
    cuda::Buffer<unsigned char> keys, values;
    cuda::Buffer<float> key_scale, value_scale, score, mass, bias;
    cuda::Buffer<std::uint32_t> position;
    std::uint32_t room = 0;
    cuda::HeadRows rows() const {
      return {keys.data(),        values.data(),   key_scale.data(),
              value_scale.data(), score.data(),    mass.data(),
              bias.data(),        position.data(), room};
    }
  };

  template <class T>
  void encode(const std::vector<std::vector<float>>& rows, std::size_t room, cuda::Buffer<unsigned char>& to,
              cuda::Buffer<float>& scale_to) const {
    const std::size_t bytes = cuda::row_bytes<T>(static_cast<unsigned>(head_dim_));
    to = cuda::Buffer<unsigned char>(room * bytes);
    if (cuda::has_scale<T>) scale_to = cuda::Buffer<float>(room);
    std::vector<unsigned char> all;
    std::vector<float> scales;
    for (const auto& row : rows) {
      float scale = 1.0f;
      const auto one = encoded<T>(row, &scale);
      all.insert(all.end(), one.begin(), one.end());
      scales.push_back(scale);
    }
    cuda::copy_in(to.data(), all.data(), all.size(), {});
    if (cuda::has_scale<T>) cuda::copy_in(scale_to.data(), scales.data(), scales.size() * sizeof(float), {});
    cuda::synchronise({});
  }
  template <class T>
  static cuda::Buffer<T> with_room(const std::vector<T>& from, std::size_t room) {
    cuda::Buffer<T> buffer(room);
    cuda::copy_in(buffer.data(), from.data(), from.size() * sizeof(T), {});
    cuda::synchronise({});
    return buffer;
  }

  void add(const PlainHead& head, std::size_t room) {
    Held held;
    held.room = static_cast<std::uint32_t>(room);
    encode<K>(head.keys, room, held.keys, held.key_scale);
    encode<V>(head.values, room, held.values, held.value_scale);
    held.position = with_room(head.position, room);
    if (scores_) held.score = with_room(head.score, room);
    if (masses_) {
      held.mass = with_room(head.mass, room);
      held.bias = with_room(head.bias, room);
    }
    heads_.push_back(std::move(held));
  }

  template <class T>
  static std::vector<T> first(const cuda::Buffer<T>& from, std::size_t count) {
    std::vector<T> to(count);
    cuda::copy_out(to.data(), from.data(), count * sizeof(T), {});
    cuda::synchronise({});
    return to;
  }
  template <class T>
  std::vector<std::vector<float>> decode(const cuda::Buffer<unsigned char>& rows,
                                         const cuda::Buffer<float>& scale, std::size_t count) const {
    const std::size_t bytes = cuda::row_bytes<T>(static_cast<unsigned>(head_dim_));
    const auto all = first(rows, count * bytes);
    const auto scales = cuda::has_scale<T> ? first(scale, count) : std::vector<float>(count, 1.0f);
    std::vector<std::vector<float>> to;
    for (std::size_t j = 0; j < count; ++j)
      to.push_back(decoded<T>(all.data() + j * bytes, scales[j], head_dim_));
    return to;
  }
  PlainHead read(const Held& held, const cuda::HeadState& state) const {
    PlainHead head;
    head.state = state;
    head.keys = decode<K>(held.keys, held.key_scale, state.size);
    head.values = decode<V>(held.values, held.value_scale, state.size);
    head.position = first(held.position, state.size);
    if (scores_) head.score = first(held.score, state.size);
    if (masses_) {
      head.mass = first(held.mass, state.size);
      head.bias = first(held.bias, state.size);
    }
    return head;
  }

  std::size_t head_dim_;
  bool scores_, masses_;
  std::vector<Held> heads_;
  cuda::Buffer<cuda::HeadRows> rows_;
  cuda::Buffer<cuda::HeadState> states_;
};

// Scratch of a step, and what it gives.
struct StepBuffers {
  StepBuffers(const cuda::DecodePlan& plan, bool probabilities, std::size_t batch, std::size_t query_heads)
      : floats(plan.partial_floats()),
        logits(probabilities ? plan.logit_floats() : 0),
        least_value(probabilities ? plan.least_count() : 0),
        least_slot(probabilities ? plan.least_count() : 0),
        out(batch * query_heads * plan.head_dim),
        lse(batch * query_heads) {}
  cuda::Buffer<float> floats, logits, least_value;
  cuda::Buffer<unsigned> least_slot;
  cuda::Buffer<float> out, lse;
};

}  // namespace zeromerge::test
