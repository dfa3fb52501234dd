// What zeromerge-replay does with its arguments: one line of JSON and an exit code.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <exception>
#include <filesystem>
#include <optional>
#include <ostream>
#include <string>

#include "replay.hpp"
#include "trace.hpp"
#include "zeromerge/cache/presets.hpp"

namespace replay {

inline constexpr double kBound = 1e-4;

enum ExitCode : int { kAgrees = 0, kDeparts = 1, kBadInput = 2 };

namespace detail {

// The shortest text that reads back as the same number: trunc(share * tokens) depends on its last bit.
inline std::string exact(double x) {
  std::array<char, 32> text;
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), x).ptr};
}

inline std::string amount(double x) { return exact(x < 1.0 ? x : std::trunc(x)); }

inline void write(std::ostream& out, const Differences& differences) {
  const auto number = [](std::optional<double> x) { return x && std::isfinite(*x) ? exact(*x) : "null"; };
  out << "{\"steps\": " << differences.steps << ", \"max_err_out\": " << number(differences.out)
      << ", \"max_err_keys\": " << number(differences.keys)
      << ", \"max_err_values\": " << number(differences.values)
      << ", \"max_err_mass\": " << number(differences.mass)
      << ", \"max_err_score\": " << number(differences.score) << "}\n";
}

}  // namespace detail

// The spec of the reference with a trace's parameters.
inline std::string reference_policy(const Args& args) {
  return "zeromerge:reference=1,budget=" + detail::amount(args.cache_budget) +
         ",tail=" + detail::amount(args.cache_tail) + ",residual=" + detail::amount(args.cache_dense) +
         ",alpha=" + detail::exact(args.scale_factor) + ",decay=" + detail::exact(args.shrink_factor) +
         ",update=" + args.score_update + ",metric=" + (args.metric == "l2" ? "l2" : "dot") + ",storage=f32";
}

// `policy` empty: the trace's own parameters in reference mode.
inline int run(const std::filesystem::path& path, const std::string& policy, std::ostream& out,
               std::ostream& err) try {
  const Trace trace = read_trace(path);
  const auto cache =
      zeromerge::make_cache(policy.empty() ? reference_policy(trace.args) : policy, trace.geometry);
  const Differences differences = replay(trace, *cache);
  detail::write(out, differences);
  return differences.within(kBound) ? kAgrees : kDeparts;
} catch (const std::exception& error) {
  err << "zeromerge-replay: " << error.what() << '\n';
  return kBadInput;
}

}  // namespace replay
