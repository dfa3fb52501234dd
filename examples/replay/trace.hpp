// A trace: what went into an implementation of ZeroMerge and what came out, step by step, in one JSON object.
//   Hq, Hkv, D, prompt, steps      query heads, kv heads, head dimension, tokens of the prompt, decoded
//   tokens args                           the reference's parameters, see Args; all but cache_budget may be
//   missing q [prompt][Hq][D]              the prompt, keys already rotated; k, v [prompt][Hkv][D] dq, dk, dv
//   [steps][..]: the decoded tokens prefill_scores [Hkv][prompt]   importance before anything is left out
//   after_prefill                  out [prompt][Hq][D], k, v [Hkv][slots][D], mass w and importance s
//   after_step [steps]             [Hkv][slots]; after a step the same, out [1][Hq][D]
// Other fields are ignored. Reading is strict: whatever has another shape is refused by name.
#pragma once

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "zeromerge/core/errors.hpp"
#include "zeromerge/core/geometry.hpp"

namespace replay {

// The reference's parameters. An amount below 1 is a share, from 1 on a count (truncated).
struct Args {
  double cache_budget = 0.0;
  double cache_tail = 0.1;
  double cache_dense = 1.0;
  double scale_factor = 1.0;
  double shrink_factor = 0.98;
  std::string score_update = "max";
  std::string metric = "dot_product";
};

// What a cache should hold and have returned at one point.
struct Snapshot {
  std::vector<float> out;  // [tokens][query_heads][head_dim]
  std::size_t slots = 0;
  std::vector<float> keys;    // [kv_heads][slots][head_dim]
  std::vector<float> values;  // [kv_heads][slots][head_dim]
  std::vector<float> mass;    // [kv_heads][slots]
  std::vector<float> score;   // [kv_heads][slots]
};

// Tokens with their queries.
struct Tokens {
  std::size_t count = 0;
  std::vector<float> q;  // [count][query_heads][head_dim]
  std::vector<float> k;  // [count][kv_heads][head_dim]
  std::vector<float> v;  // [count][kv_heads][head_dim]
};

struct Trace {
  zeromerge::Geometry geometry;  // of one layer
  Args args;
  Tokens prompt;
  Tokens decoded;
  std::vector<float> prefill_scores;  // [kv_heads][prompt]
  Snapshot after_prefill;
  std::vector<Snapshot> after_step;  // [decoded]
};

namespace detail {

using nlohmann::json;
using zeromerge::fail;

// What stands there, for messages; never a whole array.
inline std::string describe(const json& node) {
  return node.is_structured() ? node.type_name() : node.dump();
}

// A node of the file and its name there.
struct Field {
  const json& node;
  std::string name;

  Field operator[](const char* key) const {
    if (!node.is_object()) fail(name, ": expected an object, got ", describe(node));
    const auto found = node.find(key);
    if (found == node.end())
      fail(name, ": the field '", key, "' is missing; add it (examples/README.md describes the format)");
    return {*found, name + "." + key};
  }
  bool has(const char* key) const { return node.is_object() && node.contains(key); }
};

inline double read_number(const Field& field) {
  if (!field.node.is_number()) fail(field.name, ": expected a number, got ", describe(field.node));
  return field.node.get<double>();
}

inline std::size_t read_count(const Field& field, std::size_t least, std::size_t most) {
  const double x = read_number(field);
  if (!(x >= static_cast<double>(least)) || !(x <= static_cast<double>(most)) || x != std::floor(x))
    fail(field.name, ": expected a whole number in [", least, ", ", most, "], got ", x);
  return static_cast<std::size_t>(x);
}

// One dimension of an array: its length and the field that sets it.
struct Dim {
  const char* name;
  std::size_t length;
};

// Appends a nested array of this shape, the last dimension fastest. `at`: indices of the node inside the
// field.
inline void append_array(const Field& field, const json& node, const std::vector<Dim>& shape,
                         std::vector<std::size_t>& at, std::vector<float>& to) {
  const auto where = [&] {
    std::string name = field.name;
    for (const std::size_t i : at) name += "[" + std::to_string(i) + "]";
    return name;
  };
  if (at.size() == shape.size()) {
    if (!node.is_number()) fail(where(), ": expected a number, got ", describe(node));
    const auto x = node.get<double>();
    if (!(std::abs(x) <= std::numeric_limits<float>::max()))
      fail(where(), ": ", x, " is not a finite f32; traces hold finite numbers only");
    to.push_back(static_cast<float>(x));
    return;
  }
  const auto& [name, length] = shape[at.size()];
  if (!node.is_array())
    fail(where(), ": expected an array of ", length, " (", name, "), got ", describe(node));
  if (node.size() != length)
    fail(where(), ": expected ", length, " (", name, ") elements, got ", node.size(), "; correct ", name,
         " or the array");
  at.push_back(0);
  for (const json& element : node) {
    append_array(field, element, shape, at, to);
    ++at.back();
  }
  at.pop_back();
}

inline std::vector<float> read_array(const Field& field, const std::vector<Dim>& shape) {
  std::vector<float> to;
  std::vector<std::size_t> at;
  append_array(field, field.node, shape, at, to);
  return to;
}

inline Args read_args(const Field& field) {
  Args args;
  args.cache_budget = read_number(field["cache_budget"]);
  if (!(args.cache_budget > 0.0))
    fail(field.name, ".cache_budget: ", args.cache_budget,
         " keeps nothing; use a share below 1 or a count from 1 on");
  const auto number = [&](const char* key, double& to) {
    if (!field.has(key)) return;
    to = read_number(field[key]);
    if (!(to >= 0.0)) fail(field.name, ".", key, ": must not be negative, got ", to);
  };
  number("cache_tail", args.cache_tail);
  number("cache_dense", args.cache_dense);
  number("scale_factor", args.scale_factor);
  number("shrink_factor", args.shrink_factor);
  const auto word = [&](const char* key, std::string& to, const std::string& otherwise) {
    if (!field.has(key)) return;
    const json& node = field[key].node;
    if (node != to && node != otherwise)
      fail(field.name, ".", key, ": expected \"", to, "\" or \"", otherwise, "\", got ", describe(node));
    to = node.get<std::string>();
  };
  word("score_update", args.score_update, "sum");
  word("metric", args.metric, "l2");
  return args;
}

inline Snapshot read_snapshot(const Field& field, Dim tokens, Dim q_heads, Dim kv_heads, Dim dim) {
  Snapshot shot;
  shot.out = read_array(field["out"], {tokens, q_heads, dim});
  const json& mass = field["w"].node;
  if (mass.is_array() && !mass.empty() && mass[0].is_array()) shot.slots = mass[0].size();
  const Dim slots{"entries in w[0]", shot.slots};
  shot.mass = read_array(field["w"], {kv_heads, slots});
  shot.score = read_array(field["s"], {kv_heads, slots});
  shot.keys = read_array(field["k"], {kv_heads, slots, dim});
  shot.values = read_array(field["v"], {kv_heads, slots, dim});
  return shot;
}

inline json parse(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || file.peek() == std::ifstream::traits_type::eof())
    fail(path.string(), ": cannot be read or is empty; name a trace's JSON file");
  try {
    return json::parse(file);
  } catch (const json::exception& error) {
    fail(path.string(), ": not valid JSON (which has no NaN or Infinity): ", error.what());
  }
}

}  // namespace detail

// Throws zeromerge::Error, with the field's name and what was expected, if it is not a trace.
inline Trace read_trace(const nlohmann::json& file) {
  using detail::Dim;
  constexpr std::size_t kMost = 1u << 30;
  const detail::Field root{file, "trace"};
  const Dim q_heads{"Hq", detail::read_count(root["Hq"], 1, kMost)};
  const Dim kv_heads{"Hkv", detail::read_count(root["Hkv"], 1, kMost)};
  const Dim dim{"D", detail::read_count(root["D"], 1, zeromerge::kMaxHeadDim)};
  const Dim prompt{"prompt", detail::read_count(root["prompt"], 0, kMost)};
  const Dim steps{"steps", detail::read_count(root["steps"], 0, kMost)};
  if (q_heads.length % kv_heads.length != 0)
    zeromerge::fail("trace: Hq must be a multiple of Hkv, got ", q_heads.length, " and ", kv_heads.length);

  Trace trace;
  trace.geometry = {
      .layers = 1, .query_heads = q_heads.length, .kv_heads = kv_heads.length, .head_dim = dim.length};
  trace.args = detail::read_args(root["args"]);
  const auto tokens = [&](Dim count, const char* q, const char* k, const char* v) {
    return Tokens{count.length, read_array(root[q], {count, q_heads, dim}),
                  read_array(root[k], {count, kv_heads, dim}), read_array(root[v], {count, kv_heads, dim})};
  };
  trace.prompt = tokens(prompt, "q", "k", "v");
  trace.decoded = tokens(steps, "dq", "dk", "dv");
  trace.prefill_scores = read_array(root["prefill_scores"], {kv_heads, prompt});
  trace.after_prefill = read_snapshot(root["after_prefill"], prompt, q_heads, kv_heads, dim);
  const detail::Field after = root["after_step"];
  if (!after.node.is_array() || after.node.size() != steps.length)
    zeromerge::fail(after.name, ": expected an array of ", steps.length, " (steps) objects");
  for (std::size_t t = 0; t < steps.length; ++t) {
    const detail::Field step{after.node[t], after.name + "[" + std::to_string(t) + "]"};
    trace.after_step.push_back(read_snapshot(step, {"tokens of a step", 1}, q_heads, kv_heads, dim));
  }
  return trace;
}

inline Trace read_trace(const std::filesystem::path& path) { return read_trace(detail::parse(path)); }

}  // namespace replay
