// Defaults and checks of options that more than one program has. What is wrong is a UsageError, or for a
// validator its message, and names the option, the value and the remedy.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>

namespace generate {

inline constexpr std::int32_t kMostThreads = 512;  // ggml's own limit

CLI::Validator whole_number(std::int32_t low, std::int32_t high, const std::string& example);

std::filesystem::path default_model();  // empty: there is none
std::filesystem::path default_plugin();
std::filesystem::path shipped_profiles();  // the folder of head profiles that come with the programs

void require_file(const std::filesystem::path& path, const std::string& option, const std::string& remedy);
void check_model_and_plugin(const std::filesystem::path& model, const std::filesystem::path& plugin);
// That a file can be written there; an empty path is none.
void check_written(const std::string& option, const std::filesystem::path& path);
void check_json(const std::filesystem::path& path);

}  // namespace generate
