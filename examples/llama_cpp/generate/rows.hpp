// Rows of logits in a file, float32 [rows][vocabulary]: too many for memory when the prediction is long.
#pragma once

#include <fstream>
#include <span>
#include <string>
#include <vector>

namespace generate {

class RowWriter {
 public:
  explicit RowWriter(const std::string& path);
  void write(std::span<const float> row);
  void close();  // throws if anything could not be written

 private:
  std::string path_;
  std::ofstream stream_;
};

class RowReader {
 public:
  RowReader(const std::string& path, std::size_t width);
  std::span<const float> next();  // valid until the next call

 private:
  std::string path_;
  std::ifstream stream_;
  std::vector<float> row_;
};

}  // namespace generate
