#include "generate/expanded_model.hpp"

#include <unistd.h>

#include <iostream>
#include <string>

namespace generate {
namespace {

namespace fs = std::filesystem;

bool writable(const fs::path& folder) { return access(folder.c_str(), W_OK) == 0; }

// Beside the model; where that cannot be written, among the temporary files, under a name that tells apart
// models that share theirs.
fs::path copy_path(const fs::path& model) {
  const fs::path absolute = fs::canonical(model);
  const std::string stem = absolute.stem().string();
  if (writable(absolute.parent_path())) return absolute.parent_path() / (stem + ".f16.gguf");
  const std::size_t key = std::hash<std::string>{}(absolute.string());
  return fs::temp_directory_path() / (stem + "." + std::to_string(key) + ".f16.gguf");
}

}  // namespace

fs::path expanded_model(Job job, const std::function<void(const Job&)>& make) {
  const fs::path copy = copy_path(job.model);
  if (fs::exists(copy) && fs::last_write_time(copy) >= fs::last_write_time(job.model)) return copy;
  std::cerr << job.label << ": once, to " << copy.string() << '\n';
  // Renamed when complete, so that nobody ever reads half a model.
  const fs::path partial = copy.string() + ".partial." + std::to_string(getpid());
  job.output_file = partial.string();
  try {
    make(job);
    fs::rename(partial, copy);
  } catch (...) {
    std::error_code ignored;
    fs::remove(partial, ignored);
    throw;
  }
  return copy;
}

}  // namespace generate
