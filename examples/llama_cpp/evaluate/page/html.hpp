// Pieces of HTML: text that is safe in it, numbers as people write them, tables.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace evaluate {

// Text for an element's content or a quoted attribute.
std::string escape(std::string_view text);

// These write "–" for what is no finite number. `digits` behind the point, or significant ones.
std::string fixed(double value, int digits);
std::string with_sign(double value, int digits);
std::string significant(double value, int digits = 3);
std::string count(double value);  // "2,048"

// A member of an object that may lack it or hold something else; text_of() writes a number out.
std::optional<double> number_of(const nlohmann::json& object, const char* key);
std::string text_of(const nlohmann::json& object, const char* key);

// <tag class="classes">content</tag>; the content is HTML already.
std::string element(std::string_view tag, std::string_view classes, std::string_view content);

struct Column {
  std::string title;
  bool is_text = false;  // set left; else it holds figures
};

// A table that scrolls by itself where it is too wide; the cells are HTML already.
std::string table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows);

}  // namespace evaluate
