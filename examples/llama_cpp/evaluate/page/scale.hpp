// An axis: how values lie along it, and where its ticks are.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace evaluate {

struct Axis {
  std::string title;  // with its unit
  bool log = false;
  std::optional<double> low = {};  // ends that do not follow from the values
  std::optional<double> high = {};
};

struct Scale {
  double low = 0.0;
  double high = 1.0;
  bool log = false;

  // 0 at the low end, 1 at the high one.
  double at(double value) const;
  // Three to eight round numbers between the ends.
  std::vector<double> ticks() const;
};

// Wide enough for `values` and some room; a logarithmic one leaves out what is not above 0. Nothing if no
// value is left.
std::optional<Scale> fit(const Axis& axis, const std::vector<double>& values);

}  // namespace evaluate
