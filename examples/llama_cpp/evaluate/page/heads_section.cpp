// What each head of one run keeps: how many entries, and from where in the prompt.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "evaluate/page/html.hpp"
#include "evaluate/page/sections.hpp"

namespace evaluate {
namespace {

using nlohmann::json;

struct Head {
  double entries = 0.0;
  std::vector<double> density;  // [stretches] kept share of each stretch's positions
};

struct Map {
  double tokens = 0.0;
  std::vector<std::vector<Head>> layers;
  std::size_t heads = 0;  // of the layer that has most
  double least = std::numeric_limits<double>::max();
  double most = 0.0;
};

// Positions p below `tokens` with p * stretches / tokens == stretch.
double width_of(std::size_t stretch, std::size_t stretches, double tokens) {
  const auto begin = [&](std::size_t s) {
    return std::ceil(static_cast<double>(s) * tokens / static_cast<double>(stretches));
  };
  return begin(stretch + 1) - begin(stretch);
}

Map read_map(const json& heads) {
  Map map;
  map.tokens = number_of(heads, "tokens").value_or(0.0);
  for (const json& layer : heads.value("layers", json::array())) {
    std::vector<Head>& row = map.layers.emplace_back();
    for (const json& head : layer) {
      Head& h = row.emplace_back();
      h.entries = number_of(head, "entries").value_or(0.0);
      const json kept = head.value("kept", json::array());
      for (std::size_t s = 0; s < kept.size(); ++s) {
        const double width = width_of(s, kept.size(), map.tokens);
        h.density.push_back(width > 0.0 && kept[s].is_number() ? kept[s].get<double>() / width : 0.0);
      }
      map.least = std::min(map.least, h.entries);
      map.most = std::max(map.most, h.entries);
    }
    map.heads = std::max(map.heads, row.size());
  }
  return map;
}

std::string rect(double x, double y, double width, double height, const std::string& classes,
                 const std::string& tooltip) {
  return "<rect x=\"" + fixed(x, 1) + "\" y=\"" + fixed(y, 1) + "\" width=\"" + fixed(width, 1) +
         "\" height=\"" + fixed(height, 1) + "\" class=\"" + classes + "\"><title>" + escape(tooltip) +
         "</title></rect>\n";
}

std::string text(double x, double y, const char* classes, const std::string& words) {
  return "<text x=\"" + fixed(x, 1) + "\" y=\"" + fixed(y, 1) + "\" class=\"" + classes + "\">" +
         escape(words) + "</text>\n";
}

// Colours 1 to 8 between the least and the most; where all are the same, one of the middle.
int shade(const Map& map, double entries) {
  if (map.most <= map.least) return 4;
  return 1 + std::min(7, static_cast<int>(8.0 * (entries - map.least) / (map.most - map.least)));
}

std::string ramp(const std::vector<std::pair<int, std::string>>& steps) {
  std::string out = "<ul class=\"legend ramp\">\n";
  for (const auto& [colour, words] : steps)
    out += "<li><i class=\"f" + std::to_string(colour) + "\"></i>" + escape(words) + "</li>\n";
  return out + "</ul>\n";
}

std::string capacity_legend(const Map& map) {
  if (map.most <= map.least) return ramp({{4, count(map.most) + " entries in every head"}});
  std::vector<std::pair<int, std::string>> steps;
  const double step = (map.most - map.least) / 8.0;
  for (int i = 0; i < 8; ++i) {
    // The whole numbers that fall into this colour; some colours have none.
    const double low = std::ceil(map.least + step * i);
    const double high = i == 7 ? map.most : std::ceil(map.least + step * (i + 1)) - 1.0;
    if (low > high) continue;
    steps.emplace_back(i + 1, low == high ? count(low) : count(low) + "–" + count(high));
  }
  return ramp(steps);
}

std::string capacity_map(const Map& map) {
  constexpr double kLeft = 58, kRow = 24;
  const auto layers = static_cast<double>(map.layers.size());
  const double cell = std::min(36.0, (1080.0 - kLeft) / layers);
  const double width = std::max(640.0, kLeft + cell * layers + 4),
               height = kRow * static_cast<double>(map.heads) + 46;
  std::string svg = "<svg style=\"min-width:" + fixed(0.8 * width, 0) + "px\" viewBox=\"0 0 " +
                    fixed(width, 0) + " " + fixed(height, 0) +
                    "\" role=\"img\" aria-label=\"Entries kept by each head\">\n";
  for (std::size_t h = 0; h < map.heads; ++h)
    svg += text(kLeft - 8, kRow * static_cast<double>(h) + 16, "end", "head " + std::to_string(h));
  const auto every = static_cast<std::size_t>(std::ceil(24.0 / cell));
  for (std::size_t l = 0; l < map.layers.size(); ++l) {
    const double x = kLeft + cell * static_cast<double>(l);
    for (std::size_t h = 0; h < map.layers[l].size(); ++h) {
      const double entries = map.layers[l][h].entries;
      svg += rect(
          x, kRow * static_cast<double>(h), cell - 1.5, kRow - 1.5,
          "cell f" + std::to_string(shade(map, entries)),
          "layer " + std::to_string(l) + ", head " + std::to_string(h) + ": " + count(entries) + " entries");
    }
    if (l % every == 0) svg += text(x + cell / 2, height - 32, "middle", std::to_string(l));
  }
  svg += text(kLeft + cell * layers / 2, height - 8, "title middle", "layer") + "</svg>\n";
  return "<figure class=\"whole\" id=\"map-capacity\">\n<figcaption><h3>Capacity of each head</h3><p>Entries "
         "that each kv "
         "head keeps when the prompt has ended.</p></figcaption>\n<div class=\"scroll\" tabindex=\"0\">" +
         svg + "</div>" + capacity_legend(map) + "</figure>\n";
}

// What is kept is a few per cent here and everything there: shares rise by factors of about 2.
constexpr std::array<double, 8> kShares = {0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.9, 1e9};

int share_shade(double share) {
  if (share <= 0.0) return 0;
  int colour = 1;
  while (share > kShares[static_cast<std::size_t>(colour - 1)]) ++colour;
  return colour;
}

// One strip: a path for each colour, for a rectangle for each stretch would make the page huge.
std::string strip(const std::vector<double>& density, double left, double top, double cell, double height) {
  std::array<std::string, 9> paths;
  for (std::size_t begin = 0, end; begin < density.size(); begin = end) {
    const int colour = share_shade(density[begin]);
    for (end = begin; end < density.size() && share_shade(density[end]) == colour;) ++end;
    const std::string width = fixed(cell * static_cast<double>(end - begin), 1);
    paths[static_cast<std::size_t>(colour)] += "M" + fixed(left + cell * static_cast<double>(begin), 1) +
                                               " " + fixed(top, 1) + "h" + width + "v" + fixed(height, 1) +
                                               "h-" + width + "z";
  }
  std::string out;
  for (std::size_t colour = 0; colour < paths.size(); ++colour)
    if (!paths[colour].empty())
      out += "<path class=\"f" + std::to_string(colour) + "\" d=\"" + paths[colour] + "\"/>\n";
  return out;
}

std::string kept_panel(const Map& map, std::size_t head) {
  constexpr double kLeft = 40, kWidth = 340, kRow = 9, kTop = 8;
  const double bottom = kTop + kRow * static_cast<double>(map.layers.size());
  std::string svg = "<svg viewBox=\"0 0 360 " + fixed(bottom + 42, 0) +
                    "\" role=\"img\" aria-label=\"Where head " + std::to_string(head) + " keeps entries\">\n";
  const std::size_t every = std::max<std::size_t>(1, (map.layers.size() + 7) / 8);
  for (std::size_t l = 0; l < map.layers.size(); ++l) {
    const double top = kTop + kRow * static_cast<double>(l);
    if (l % every == 0) svg += text(kLeft - 6, top + 8, "end", std::to_string(l));
    if (head >= map.layers[l].size()) continue;
    const Head& h = map.layers[l][head];
    const double cell = (kWidth - kLeft) / static_cast<double>(std::max<std::size_t>(1, h.density.size()));
    svg += strip(h.density, kLeft, top, cell, kRow - 1);
    svg += rect(kLeft, top, kWidth - kLeft, kRow - 1, "hover",
                "layer " + std::to_string(l) + ", head " + std::to_string(head) + ": " + count(h.entries) +
                    " of " + count(map.tokens) + " kept");
  }
  for (const double part : {0.0, 0.5, 1.0})
    svg += text(kLeft + part * (kWidth - kLeft), bottom + 14, "middle", count(part * map.tokens));
  svg += text((kLeft + kWidth) / 2, bottom + 34, "title middle", "position in the prompt (tokens)");
  svg += "<g transform=\"rotate(-90 10 " + fixed(bottom / 2, 1) + ")\">" +
         text(10, bottom / 2, "title middle", "layer") + "</g>\n</svg>\n";
  return "<figure class=\"kept\">\n<h3>Head " + std::to_string(head) + "</h3>\n" + svg + "</figure>\n";
}

std::string kept_maps(const Map& map) {
  std::string panels;
  for (std::size_t h = 0; h < map.heads; ++h) panels += kept_panel(map, h);
  return "<h3 id=\"map-kept\">What was kept, and where</h3>\n<p class=\"small\">A strip per layer, from the "
         "prompt's first "
         "token to its last; the colour is the share of positions that is kept. A merged entry counts at the "
         "position of its "
         "oldest token.</p>\n" +
         ramp({{0, "nothing"},
               {1, "to 2%"},
               {2, "5%"},
               {3, "10%"},
               {4, "20%"},
               {5, "40%"},
               {6, "60%"},
               {7, "90%"},
               {8, "100%"}}) +
         "<div class=\"maps\" style=\"margin-top:12px\">\n" + panels + "</div>\n";
}

}  // namespace

std::string heads_section(const json& findings) {
  if (!findings.contains("heads") || !findings["heads"].is_object()) return "";
  const json& heads = findings["heads"];
  const Map map = read_map(heads);
  if (map.heads == 0) return "";
  return "<section id=\"heads\">\n<h2>The heads of one run</h2>\n<p class=\"lead\"><code>" +
         escape(text_of(heads, "policy")) + "</code> at " + escape(text_of(heads, "budget")) + " on <code>" +
         escape(text_of(heads, "text")) + "</code>: " + std::to_string(map.layers.size()) + " layers of " +
         std::to_string(map.heads) + " kv heads, a prompt of " + count(map.tokens) + " tokens.</p>\n" +
         capacity_map(map) + kept_maps(map) + "</section>\n";
}

}  // namespace evaluate
