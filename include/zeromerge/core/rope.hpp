// Rotary position embedding (RoPE) as llama.cpp applies it: pairs of channels turn by position * frequency.
// The library never rotates for an engine; it turns queries that were rotated already to other positions, and
// back. Frequencies do not depend on positions in any variant, so a turn by a difference is exact.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "zeromerge/core/errors.hpp"
#include "zeromerge/core/geometry.hpp"

namespace zeromerge {

// Which channels turn together.
enum class RopePairs {
  halves,     // i and dims / 2 + i (NeoX)
  neighbours  // 2i and 2i + 1
};

// What a model's metadata says; the names in brackets are ggml's.
struct RopeParams {
  std::size_t dims = 0;   // channels that turn, an even number (n_dims)
  std::size_t first = 0;  // the first of them (n_offs)
  RopePairs pairs = RopePairs::halves;
  double base = 10000.0;             // freq_base
  double scale = 1.0;                // of all frequencies: linear interpolation by 1 / scale (freq_scale)
  std::vector<float> factors = {};   // [dims / 2] divisors of frequencies, or empty (llama3: freq_factors)
  double extrapolation = 0.0;        // YaRN: how much of the ramp applies (ext_factor)
  double attention = 1.0;            // the length of rotated rows (attn_factor)
  double beta_fast = 32.0;           // YaRN: turns over the original context above which nothing is scaled
  double beta_slow = 1.0;            // and below which all is
  std::size_t original_context = 0;  // YaRN: tokens (n_ctx_orig)
};

// A turn by one difference of positions.
struct RopeTurn {
  std::vector<float> cosine;  // [dims / 2]
  std::vector<float> sine;    // [dims / 2]
};

class Rope {
 public:
  // Throws Error if the parameters are impossible for rows of head_dim channels.
  Rope(const RopeParams& params, std::size_t head_dim) : params_(params) {
    check_fits(head_dim);
    check();
    frequency_.resize(params.dims / 2);
    const auto [low, high] = ramp_ends();
    for (std::size_t i = 0; i < frequency_.size(); ++i) {
      const double plain = std::pow(params.base, -2.0 * static_cast<double>(i) / dims()) /
                           (params.factors.empty() ? 1.0 : static_cast<double>(params.factors[i]));
      // YaRN (arXiv 2309.00071, section 3.2): slow pairs are interpolated, fast ones left alone.
      const double place = std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
      const double left = (1.0 - place) * params.extrapolation;
      frequency_[i] = plain * (params.scale * (1.0 - left) + left);
    }
    length_ = params.attention;
    if (params.extrapolation != 0.0) length_ *= 1.0 + 0.1 * std::log(1.0 / params.scale);
  }

  // Throws Error unless rows of head_dim channels have all channels that turn.
  void check_fits(std::size_t head_dim) const {
    const auto [dims, first] = std::pair(params_.dims, params_.first);
    if (dims == 0 || dims % 2 != 0 || first % 2 != 0 || dims > head_dim || first > head_dim - dims)
      fail("rope: ", dims, " channels from ", first, " on do not turn in pairs within a head_dim of ",
           head_dim, "; give the rope of this model's heads");
  }

  const RopeParams& params() const noexcept { return params_; }
  std::span<const double> frequencies() const noexcept { return frequency_; }  // radians per position
  double length() const noexcept { return length_; }  // what rotating multiplies a row with

  // The turn from a position to the one `positions` later (or earlier, if negative).
  RopeTurn turn(double positions) const {
    RopeTurn t{std::vector<float>(frequency_.size()), std::vector<float>(frequency_.size())};
    for (std::size_t i = 0; i < frequency_.size(); ++i) {
      t.cosine[i] = static_cast<float>(std::cos(positions * frequency_[i]));
      t.sine[i] = static_cast<float>(std::sin(positions * frequency_[i]));
    }
    return t;
  }

  // Turns a row that has been rotated already. In place; row: [head_dim].
  void apply(const RopeTurn& t, float* row) const noexcept {
    const bool halves = params_.pairs == RopePairs::halves;
    const std::size_t step = halves ? 1 : 2;
    float* x = row + params_.first;
    float* y = x + (halves ? frequency_.size() : 1);
    for (std::size_t i = 0; i < frequency_.size(); ++i) {
      float& a = x[i * step];
      float& b = y[i * step];
      const float turned = a * t.cosine[i] - b * t.sine[i];
      b = a * t.sine[i] + b * t.cosine[i];
      a = turned;
    }
  }

  // A projection's row to a position, as an engine does it, and back. In place; row: [head_dim].
  void rotate(float* row, double position) const {
    apply(turn(position), row);
    stretch(row, static_cast<float>(length_));
  }
  void unrotate(float* row, double position) const {
    apply(turn(-position), row);
    stretch(row, static_cast<float>(1.0 / length_));
  }

 private:
  double dims() const noexcept { return static_cast<double>(params_.dims); }

  void check() const {
    const RopeParams& p = params_;
    if (!(p.base > 0.0) || !(p.scale > 0.0) || !(p.attention > 0.0))
      fail("rope: base ", p.base, ", scale ", p.scale, " and attention factor ", p.attention,
           " must be above 0");
    if (!p.factors.empty() && p.factors.size() != p.dims / 2)
      fail("rope: expected ", p.dims / 2, " frequency factors, one per pair, got ", p.factors.size());
    for (const float f : p.factors)
      if (!(f > 0.0f)) fail("rope: a frequency factor of ", f, " is not above 0");
    if (p.extrapolation != 0.0 && p.original_context == 0)
      fail("rope: YaRN needs the model's original context length");
  }

  // The pairs between which YaRN's ramp lies.
  struct Ramp {
    double low, high;
  };
  Ramp ramp_ends() const noexcept {
    if (params_.extrapolation == 0.0) return {0.0, 1.0};
    constexpr double kTwoPi = 6.283185307179586;
    const auto pair_of = [&](double turns) {  // that turns so often over the original context
      return dims() * std::log(static_cast<double>(params_.original_context) / (turns * kTwoPi)) /
             (2.0 * std::log(params_.base));
    };
    return {std::max(0.0, std::floor(pair_of(params_.beta_fast))),
            std::min(dims() - 1.0, std::ceil(pair_of(params_.beta_slow)))};
  }

  void stretch(float* row, float factor) const noexcept {
    if (factor == 1.0f) return;
    for (std::size_t i = 0; i < params_.dims; ++i) row[params_.first + i] *= factor;
  }

  RopeParams params_;
  std::vector<double> frequency_;
  double length_ = 1.0;
};

}  // namespace zeromerge
