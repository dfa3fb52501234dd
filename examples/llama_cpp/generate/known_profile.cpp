#include "generate/known_profile.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

#include "zeromerge/cache/spec.hpp"

namespace generate {
namespace {

// "SmolLM2 135M Instruct" -> "smollm2-135m-instruct"
std::string file_name(const Model& model) {
  std::array<char, 256> name{};
  if (llama_model_meta_val_str(model.get(), "general.name", name.data(), name.size()) < 0) return {};
  std::string text = name.data();
  for (char& c : text)
    c = std::isalnum(static_cast<unsigned char>(c)) ? static_cast<char>(std::tolower(c)) : '-';
  return text;
}

}  // namespace

std::string with_known_profile(const std::string& policy, const Model& model) {
  const zeromerge::Spec spec(policy);
  if (spec.name() != "best" || spec.has("profile") || spec.has("heads")) return policy;
  const std::string name = file_name(model);
  const std::filesystem::path file = std::filesystem::path(ZEROMERGE_PROFILES) / (name + ".txt");
  if (name.empty() || !std::filesystem::exists(file)) return policy;
  return policy + (policy.find(':') == std::string::npos ? ":" : ",") + "profile=" + file.string();
}

}  // namespace generate
