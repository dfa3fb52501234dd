#include "evaluate/page/scale.hpp"

#include <algorithm>
#include <cmath>

namespace evaluate {
namespace {

constexpr double kRoom = 0.07;  // of the axis, at either end

std::vector<double> linear_ticks(double low, double high) {
  const double about = (high - low) / 6.0;
  double step = std::pow(10.0, std::floor(std::log10(about)));
  for (const double times : {1.0, 2.0, 5.0, 10.0})
    if (step * times >= about * 0.99) {
      step *= times;
      break;
    }
  std::vector<double> ticks;
  const double slack = step * 1e-6;
  for (double n = std::ceil((low - slack) / step); n * step <= high + slack; ++n)
    ticks.push_back(n * step + 0.0);  // + 0.0: no tick is -0
  return ticks;
}

std::vector<double> decade_ticks(double low, double high, const std::vector<double>& multiples) {
  std::vector<double> ticks;
  for (double e = std::floor(std::log10(low)); e <= std::ceil(std::log10(high)); ++e)
    for (const double m : multiples) {
      const double tick = m * std::pow(10.0, e);
      if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push_back(tick);
    }
  return ticks;
}

// Over many decades their powers thin out, so that labels stay apart.
std::vector<double> log_ticks(double low, double high) {
  for (const std::vector<double>& multiples :
       {std::vector<double>{1, 1.5, 2, 3, 4, 5, 6, 8}, {1, 2, 3, 5}, {1, 2, 5}, {1, 3}, {1}}) {
    std::vector<double> ticks = decade_ticks(low, high, multiples);
    if (ticks.size() > 7) continue;
    if (ticks.size() < 3) break;
    return ticks;
  }
  if (high / low < 100.0) return linear_ticks(low, high);
  const std::vector<double> decades = decade_ticks(low, high, {1});
  const std::size_t every = decades.size() / 7 + 1;
  std::vector<double> ticks;
  for (std::size_t i = 0; i < decades.size(); i += every) ticks.push_back(decades[i]);
  return ticks;
}

}  // namespace

double Scale::at(double value) const {
  return log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
}

std::vector<double> Scale::ticks() const { return log ? log_ticks(low, high) : linear_ticks(low, high); }

std::optional<Scale> fit(const Axis& axis, const std::vector<double>& values) {
  std::vector<double> usable;
  std::copy_if(values.begin(), values.end(), std::back_inserter(usable),
               [&](double v) { return std::isfinite(v) && (!axis.log || v > 0.0); });
  if (usable.empty()) return std::nullopt;
  const auto [least, most] = std::minmax_element(usable.begin(), usable.end());
  Scale scale{*least, *most, axis.log};
  if (axis.log) {
    const double room =
        std::max(std::pow(scale.high / scale.low, kRoom), scale.high / scale.low < 1.05 ? 1.5 : 1.1);
    scale.low /= room;
    scale.high *= room;
  } else {
    const double span = scale.high - scale.low;
    const double size = std::max(std::abs(scale.high), std::abs(scale.low));
    const double room = span > size * 1e-9 ? span * kRoom : std::max(size * 0.1, 1e-9);
    scale.low = scale.low >= 0.0 ? std::max(0.0, scale.low - room) : scale.low - room;
    scale.high += room;
  }
  scale.low = axis.low.value_or(scale.low);
  scale.high = axis.high.value_or(scale.high);
  return scale;
}

}  // namespace evaluate
