#include "evaluate/page/chart.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "evaluate/page/html.hpp"

namespace evaluate {
namespace {

constexpr double kWidth = 480, kHeight = 320;
constexpr double kLeft = 64, kRight = 14, kTop = 26, kBottom = 48;
constexpr double kInnerWidth = kWidth - kLeft - kRight, kInnerHeight = kHeight - kTop - kBottom;
constexpr std::size_t kLooks = 8;  // of colours and of shapes; behind them the same ones hollow

constexpr std::array<const char*, kLooks> kShapes = {"M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
                                                     "M-4-4H4V4H-4z",
                                                     "M0-5.6L5.6 0L0 5.6L-5.6 0z",
                                                     "M0-5.2L5.2 4.2H-5.2z",
                                                     "M0 5.2L5.2-4.2H-5.2z",
                                                     "M-1.8-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8z",
                                                     "M-2.7-4.7H2.7L5.4 0L2.7 4.7H-2.7L-5.4 0z",
                                                     "M-5-2.2V2.2L0 5L5 2.2V-2.2L0-5z"};

std::string place(double value) { return fixed(value, 1); }

std::string look_class(std::size_t look) {
  return "c" + std::to_string(look % kLooks) + (look / kLooks % 2 == 1 ? " hollow" : "");
}

std::string text(double x, double y, const char* classes, const std::string& words) {
  return "<text x=\"" + place(x) + "\" y=\"" + place(y) + "\" class=\"" + classes + "\">" + escape(words) +
         "</text>\n";
}

std::string line(double x1, double y1, double x2, double y2, const char* classes) {
  return "<line x1=\"" + place(x1) + "\" y1=\"" + place(y1) + "\" x2=\"" + place(x2) + "\" y2=\"" +
         place(y2) + "\" class=\"" + classes + "\"/>\n";
}

// No digits that only rounding brought.
std::string tick_label(double value) {
  return std::abs(value) >= 1e4 && std::abs(value) < 1e7 ? count(value) : significant(value, 4);
}

struct Box {
  double left, top, right, bottom;
  bool meets(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
};

// Puts labels where they cover neither points nor each other; one that fits nowhere is left out, for the
// point's tooltip says it too.
class Labels {
 public:
  void keep_free(double x, double y) { taken_.push_back({x - 6, y - 6, x + 6, y + 6}); }
  void keep_free(const Box& box) { taken_.push_back(box); }

  std::string add(double x, double y, const std::string& words) {
    const double width = 6.6 * static_cast<double>(words.size());
    struct Way {
      double dx, dy;
      const char* classes;
      double left;
    };
    for (const Way& way : {Way{0, -9, "label middle", -width / 2}, Way{9, 4, "label", 9},
                           Way{0, 18, "label middle", -width / 2}, Way{-9, 4, "label end", -9 - width}}) {
      const double left = x + way.left, base = y + way.dy;
      const Box box{left, base - 10, left + width, base + 2};
      const bool outside = box.left < kLeft + 2 || box.right > kWidth - 2 || box.top < kTop - 4 ||
                           box.bottom > kTop + kInnerHeight - 1;
      if (outside || std::any_of(taken_.begin(), taken_.end(), [&](const Box& b) { return b.meets(box); }))
        continue;
      taken_.push_back(box);
      return text(x + way.dx, base, way.classes, words);
    }
    return "";
  }

 private:
  std::vector<Box> taken_;
};

class Drawing {
 public:
  Drawing(const Chart& chart, const Scale& x, const Scale& y) : chart_(chart), x_(x), y_(y) {}

  std::string svg() {
    std::string out =
        "<svg viewBox=\"0 0 480 320\" role=\"img\" aria-label=\"" + escape(chart_.title) + "\">\n";
    out += grid() + marks();
    for (const Series& series : chart_.series)
      for (const Point& point : drawable(series)) labels_.keep_free(x(point.x), y(point.y));
    std::string lines, points, labels;
    for (const Series& series : chart_.series) {
      if (chart_.connected) lines += path(series);
      for (const Point& point : drawable(series)) {
        points += marker(series.look, x(point.x), y(point.y), point.tooltip);
        labels += labels_.add(x(point.x), y(point.y), point.label);
      }
    }
    return out + lines + points + labels + "</svg>\n";
  }

 private:
  double x(double value) const { return kLeft + kInnerWidth * x_.at(value); }
  double y(double value) const { return kTop + kInnerHeight * (1 - y_.at(value)); }

  std::vector<Point> drawable(const Series& series) const {
    std::vector<Point> points;
    for (const Point& p : series.points)
      if (std::isfinite(x(p.x)) && std::isfinite(y(p.y))) points.push_back(p);
    std::stable_sort(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.x < b.x; });
    return points;
  }

  std::string grid() const {
    const double bottom = kTop + kInnerHeight, right = kLeft + kInnerWidth;
    std::string out;
    for (const double tick : y_.ticks())
      out += line(kLeft, y(tick), right, y(tick), "grid") +
             text(kLeft - 7, y(tick) + 4, "end", tick_label(tick));
    for (const double tick : x_.ticks())
      out += line(x(tick), bottom, x(tick), bottom + 4, "axis") +
             text(x(tick), bottom + 18, "middle", tick_label(tick));
    out += line(kLeft, bottom, right, bottom, "axis");
    out += text(kLeft + kInnerWidth / 2, kHeight - 8, "title middle", chart_.x.title);
    const double middle = kTop + kInnerHeight / 2;
    return out + "<g transform=\"rotate(-90 13 " + place(middle) + ")\">" +
           text(13, middle, "title middle", chart_.y.title) + "</g>\n";
  }

  std::string marks() {
    std::string out;
    const double bottom = kTop + kInnerHeight, right = kLeft + kInnerWidth;
    if (chart_.y_mark) {
      const double at = y(chart_.y_mark->at);
      out += line(kLeft, at, right, at, "mark") + text(right, at - 5, "note end", chart_.y_mark->label);
      labels_.keep_free({right - 6.0 * static_cast<double>(chart_.y_mark->label.size()), at - 15, right, at});
    }
    if (chart_.x_mark) {
      const double at = x(chart_.x_mark->at);
      out += line(at, kTop, at, bottom, "mark");
      const double width = 6.0 * static_cast<double>(chart_.x_mark->label.size());
      const bool before = at - width > kLeft + kInnerWidth / 2;
      out += text(before ? at - 5 : at + 5, kTop - 6, before ? "note end" : "note", chart_.x_mark->label);
    }
    return out;
  }

  std::string path(const Series& series) const {
    std::string points;
    for (const Point& p : drawable(series)) points += place(x(p.x)) + "," + place(y(p.y)) + " ";
    return "<polyline class=\"line " + look_class(series.look) + "\" points=\"" + points + "\"/>\n";
  }

  const Chart& chart_;
  Scale x_, y_;
  Labels labels_;
};

}  // namespace

std::string marker(std::size_t look, double x, double y, const std::string& tooltip) {
  return "<path class=\"marker " + look_class(look) + "\" transform=\"translate(" + place(x) + " " +
         place(y) + ")\" d=\"" + kShapes[look % kLooks] + "\">" +
         (tooltip.empty() ? "" : "<title>" + escape(tooltip) + "</title>") + "</path>\n";
}

std::string legend(const std::vector<std::string>& names) {
  std::string out = "<ul class=\"legend\">\n";
  for (std::size_t look = 0; look < names.size(); ++look)
    out +=
        "<li><svg viewBox=\"0 0 28 14\" aria-hidden=\"true\"><line x1=\"1\" y1=\"7\" x2=\"27\" y2=\"7\" "
        "class=\"line " +
        look_class(look) + "\"/>" + marker(look, 14, 7, "") + "</svg><code>" + escape(names[look]) +
        "</code></li>\n";
  return out + "</ul>\n";
}

std::string figure(const Chart& chart) {
  std::vector<double> xs, ys;
  for (const Series& series : chart.series)
    for (const Point& point : series.points) {
      if ((chart.x.log && point.x <= 0) || (chart.y.log && point.y <= 0)) continue;
      xs.push_back(point.x);
      ys.push_back(point.y);
    }
  std::string out =
      "<figure id=\"" + escape(chart.id) + "\">\n<figcaption><h3>" + escape(chart.title) + "</h3>";
  if (!chart.note.empty()) out += "<p>" + escape(chart.note) + "</p>";
  out += "</figcaption>\n";
  const bool empty = !fit(chart.x, xs) || !fit(chart.y, ys);
  if (chart.x_mark) xs.push_back(chart.x_mark->at);
  if (chart.y_mark) ys.push_back(chart.y_mark->at);
  const auto x = fit(chart.x, xs), y = fit(chart.y, ys);
  if (empty || !x || !y)
    return out + "<p class=\"empty\">Nothing was measured that this chart could show.</p>\n</figure>\n";
  return out + Drawing(chart, *x, *y).svg() + "</figure>\n";
}

}  // namespace evaluate
