// The text form of a policy: name:key=value,key=value. Reading it is strict: whatever is not known is
// refused, with what is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "zeromerge/budget/amount.hpp"
#include "zeromerge/core/element.hpp"
#include "zeromerge/core/errors.hpp"

namespace zeromerge {

class Spec {
 public:
  // Throws Error if the text has not the form name[:key=value[,key=value]...] or a key comes twice.
  explicit Spec(std::string_view text) : text_(text) {
    const auto colon = text.find(':');
    name_ = text.substr(0, colon);
    if (name_.empty())
      fail("policy '", text, "': expected name:key=value,..., for example zeromerge:budget=5%");
    if (colon == std::string_view::npos) return;
    for (std::string_view rest = text.substr(colon + 1);;) {
      const auto comma = rest.find(',');
      add(rest.substr(0, comma));
      if (comma == std::string_view::npos) return;
      rest.remove_prefix(comma + 1);
    }
  }

  const std::string& name() const noexcept { return name_; }
  const std::string& text() const noexcept { return text_; }

  // What a key that the text leaves out is to be.
  void assume(const char* key, const char* value) {
    if (!has(key)) pairs_.emplace_back(key, value);
  }

  // Throws Error if a key is none of these.
  void allow_only(std::initializer_list<const char*> keys) const {
    for (const auto& [key, value] : pairs_) {
      bool known = false;
      std::string list;
      for (const char* k : keys) {
        known = known || key == k;
        list += (list.empty() ? "" : ", ") + std::string(k);
      }
      if (!known) fail("policy '", text_, "': unknown key '", key, "'; ", name_, " knows ", list);
    }
  }

  bool has(const char* key) const noexcept { return find(key) != nullptr; }

  std::string word(const char* key, const char* otherwise) const {
    const std::string* value = find(key);
    return value != nullptr ? *value : otherwise;
  }

  // One of the given words; returns its index.
  std::size_t choice(const char* key, std::initializer_list<const char*> words, std::size_t otherwise) const {
    const std::string* value = find(key);
    if (value == nullptr) return otherwise;
    std::size_t i = 0;
    std::string list;
    for (const char* w : words) {
      if (*value == w) return i;
      list += (i++ == 0 ? "" : ", ") + std::string(w);
    }
    fail("policy '", text_, "': ", key, "=", *value, " is not one of ", list);
  }

  double number(const char* key, double least, double most, double otherwise) const {
    const std::string* value = find(key);
    if (value == nullptr) return otherwise;
    double x = 0.0;
    if (!read(*value, x) || !(x >= least) || !(x <= most))
      fail("policy '", text_, "': ", key, "=", *value, " must be a number in [", least, ", ", most, "]");
    return x;
  }

  std::size_t whole(const char* key, std::size_t least, std::size_t otherwise) const {
    const double x = number(key, static_cast<double>(least), 1e9, static_cast<double>(otherwise));
    if (x != static_cast<double>(static_cast<std::size_t>(x)))
      fail("policy '", text_, "': ", key, "=", x, " must be a whole number");
    return static_cast<std::size_t>(x);
  }

  // "5%" or a number below 1: a share; a whole number from 1 on: a count.
  Amount amount(const char* key, Amount otherwise) const {
    const std::string* value = find(key);
    if (value == nullptr) return otherwise;
    std::string digits = *value;
    const bool percent = !digits.empty() && digits.back() == '%';
    if (percent) digits.pop_back();
    double x = 0.0;
    const bool number = read(digits, x) && x >= 0.0;
    if (number && percent && x <= 100.0) return {x / 100.0, true};
    if (number && !percent && x < 1.0) return {x, true};
    if (number && !percent && x <= 1e9 && x == static_cast<double>(static_cast<std::size_t>(x)))
      return {x, false};
    fail("policy '", text_, "': ", key, "=", *value,
         " must be a share (5% or 0.05, at most 100%) or a whole count of entries (410)");
  }

  // The same of "budget", or bytes: a whole number and B, KiB or MiB.
  Amount budget(Amount otherwise) const {
    const std::string* value = find("budget");
    if (value == nullptr || value->find_first_of("BKMGibk") == value->npos)
      return amount("budget", otherwise);
    const std::size_t end = std::min(value->find_first_not_of("0123456789"), value->size());
    const std::string unit = value->substr(end);
    const double size = unit == "B" ? 1.0 : unit == "KiB" ? 1024.0 : unit == "MiB" ? 1048576.0 : 0.0;
    double x = 0.0;
    if (size == 0.0 || !read(value->substr(0, end), x) || x < 1.0 || x * size > 1e15)
      fail("policy '", text_, "': budget=", *value,
           " must be a whole number of bytes a head on average, as in 26112B, 24KiB or 1MiB");
    return {x * size, false, true};
  }

  StorageType storage(const char* key, StorageType otherwise) const {
    return static_cast<StorageType>(
        choice(key, {"f32", "f16", "bf16", "q8", "q4"}, static_cast<std::size_t>(otherwise)));
  }

  // storage= for both, keys= and values= apart.
  std::pair<StorageType, StorageType> stored(StorageType otherwise) const {
    const StorageType both = storage("storage", otherwise);
    return {storage("keys", both), storage("values", both)};
  }

 private:
  void add(std::string_view pair) {
    const auto equal = pair.find('=');
    if (equal == std::string_view::npos || equal == 0 || equal + 1 == pair.size())
      fail("policy '", text_, "': expected key=value, got '", pair, "'");
    std::string key(pair.substr(0, equal));
    if (has(key.c_str())) fail("policy '", text_, "': the key '", key, "' comes twice");
    pairs_.emplace_back(std::move(key), pair.substr(equal + 1));
  }

  const std::string* find(std::string_view key) const noexcept {
    for (const auto& [k, value] : pairs_)
      if (k == key) return &value;
    return nullptr;
  }

  static bool read(const std::string& text, double& x) {
    if (text.empty() || std::string_view("+-0123456789.").find(text[0]) == std::string_view::npos)
      return false;
    char* end = nullptr;
    x = std::strtod(text.c_str(), &end);
    return *end == '\0' && x >= -1e300 && x <= 1e300;
  }

  std::string text_;
  std::string name_;
  std::vector<std::pair<std::string, std::string>> pairs_;
};

}  // namespace zeromerge
