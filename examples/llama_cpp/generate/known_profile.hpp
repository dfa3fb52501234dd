// The head profile that is known for a model, and the policy that a program takes when it is given none.
#pragma once

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <regex>
#include <string>
#include <system_error>

namespace generate {

// MODEL.profile beside MODEL.gguf, or else that of the profiles in `shipped` which has the model's name,
// whatever the case and the quantisation: smollm2-135m-instruct.txt for SmolLM2-135M-Instruct.Q4_1.gguf.
// Empty: none is known, or its name cannot stand in a policy's text.
inline std::filesystem::path known_profile(const std::filesystem::path& model,
                                           const std::filesystem::path& shipped) {
  namespace fs = std::filesystem;
  const auto usable = [](const fs::path& path) { return path.string().find(',') == std::string::npos; };
  std::error_code error;
  fs::path beside = model;
  beside.replace_extension(".profile");
  if (fs::is_regular_file(beside, error)) return usable(beside) ? beside : fs::path();

  static const std::regex quantisation("([-.](i?q|f|bf)[0-9]\\w*)?");
  std::string name = model.stem().string();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const fs::directory_entry& entry : fs::directory_iterator(shipped, error)) {
    const std::string known = entry.path().stem().string();
    if (name.compare(0, known.size(), known) == 0 && usable(entry.path()) &&
        std::regex_match(name.substr(known.size()), quantisation))
      return entry.path();
  }
  return {};
}

// best at 5 % of the entries, with the profile if one is known.
inline std::string default_policy(const std::filesystem::path& profile) {
  return "best:budget=5%" + (profile.empty() ? "" : ",profile=" + profile.string());
}

}  // namespace generate
