// A file for one test. Tests run side by side, so its name is the test's own.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>

namespace zeromerge::test {

// There with this text until the end of the scope. One at a time in a test.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text) : path_(name()) { std::ofstream(path_) << text; }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  static std::string name() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string("zeromerge.") + test->test_suite_name() + "." + test->name();
    for (char& c : name)
      if (c == '/') c = '.';  // of a parameterised test
    return testing::TempDir() + name;
  }

  std::string path_;
};

}  // namespace zeromerge::test
