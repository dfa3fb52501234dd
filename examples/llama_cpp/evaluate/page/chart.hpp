// A chart as inline SVG: points of several series over two axes.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "evaluate/page/scale.hpp"

namespace evaluate {

struct Point {
  double x = 0.0;
  double y = 0.0;
  std::string label;    // beside the point, where there is room
  std::string tooltip;  // whole
};

struct Series {
  std::size_t look = 0;  // colour and shape: the same for a policy in every chart
  std::vector<Point> points;
};

// A line across the chart at one value of an axis.
struct Mark {
  double at = 0.0;
  std::string label;
};

struct Chart {
  std::string id;
  std::string title;
  std::string note;  // below the title
  Axis x, y;
  std::vector<Series> series;
  bool connected = true;  // each series' points by a line, in the order of x
  std::optional<Mark> x_mark = {};
  std::optional<Mark> y_mark = {};
};

// A <figure>; one that says so if there is nothing to draw.
std::string figure(const Chart& chart);

// The mark that points of this look have, around (x, y); `tooltip` may be empty.
std::string marker(std::size_t look, double x, double y, const std::string& tooltip);
// Names beside their marks: `names` in the order of looks.
std::string legend(const std::vector<std::string>& names);

}  // namespace evaluate
