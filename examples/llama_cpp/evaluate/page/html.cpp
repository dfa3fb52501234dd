#include "evaluate/page/html.hpp"

#include <cmath>
#include <cstdio>

namespace evaluate {
namespace {

std::string formatted(const char* format, int digits, double value) {
  if (!std::isfinite(value)) return "–";
  char text[64];
  std::snprintf(text, sizeof text, format, digits, value);
  return text;
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string fixed(double value, int digits) { return formatted("%.*f", digits, value); }
std::string with_sign(double value, int digits) { return formatted("%+.*f", digits, value); }

std::string significant(double value, int digits) {
  std::string text = formatted("%.*g", digits, value);
  const std::size_t e = text.find("e-0");  // 1e-05 as 1e-5
  if (e != std::string::npos) text.erase(e + 2, 1);
  return text;
}

std::string count(double value) {
  std::string text = fixed(value, 0);
  const std::size_t first = text.starts_with('-') ? 1 : 0;
  if (std::isfinite(value))
    for (std::size_t at = text.size(); at > first + 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

std::optional<double> number_of(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  const auto at = object.find(key);
  if (at == object.end() || !at->is_number()) return std::nullopt;
  return at->get<double>();
}

std::string text_of(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto at = object.find(key);
  if (at == object.end() || at->is_null()) return "";
  return at->is_string() ? at->get<std::string>()
                         : at->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string element(std::string_view tag, std::string_view classes, std::string_view content) {
  std::string out = "<" + std::string(tag);
  if (!classes.empty()) out += " class=\"" + std::string(classes) + "\"";
  return out + ">" + std::string(content) + "</" + std::string(tag) + ">\n";
}

std::string table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows) {
  const auto cell = [&](const char* tag, std::size_t column, const std::string& content) {
    return "<" + std::string(tag) + (columns[column].is_text ? " class=\"text\">" : ">") + content + "</" +
           tag + ">";
  };
  std::string out = "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>";
  for (std::size_t c = 0; c < columns.size(); ++c) out += cell("th", c, escape(columns[c].title));
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (std::size_t c = 0; c < row.size(); ++c) out += cell("td", c, row[c]);
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

}  // namespace evaluate
