#include "generate/rows.hpp"

#include <stdexcept>

namespace generate {

RowWriter::RowWriter(const std::string& path) : path_(path), stream_(path, std::ios::binary) {}

void RowWriter::write(std::span<const float> row) {
  stream_.write(reinterpret_cast<const char*>(row.data()), static_cast<std::streamsize>(row.size_bytes()));
}

void RowWriter::close() {
  stream_.close();
  if (!stream_) {
    throw std::runtime_error(
        path_ + ": the reference's logits cannot be written; is there space left? TMPDIR moves them");
  }
}

RowReader::RowReader(const std::string& path, std::size_t width)
    : path_(path), stream_(path, std::ios::binary), row_(width) {}

std::span<const float> RowReader::next() {
  stream_.read(reinterpret_cast<char*>(row_.data()),
               static_cast<std::streamsize>(row_.size() * sizeof(float)));
  if (!stream_) throw std::runtime_error(path_ + ": fewer rows of logits than tokens");
  return row_;
}

}  // namespace generate
