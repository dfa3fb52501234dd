// zeromerge-calibrate as it is called: a profile that policies can read, and refusals.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>
#include <string>

#include "zeromerge/budget/profile.hpp"

namespace {

namespace fs = std::filesystem;

class Calibrate : public testing::Test {
 protected:
  void SetUp() override {
    folder = fs::temp_directory_path() / ("zeromerge-calibrate-test." + std::to_string(getpid()));
    fs::create_directories(folder);
    std::ofstream text(folder / "a.txt");
    for (int i = 0; i < 60; ++i)
      text << "In line " << i << " of the log the keeper wrote that the water stood at " << i * 37 % 91
           << " feet. ";
  }
  void TearDown() override { fs::remove_all(folder); }

  int run(const std::string& arguments) {
    const fs::path log = folder / "log";
    const std::string command =
        std::string(ZEROMERGE_BIN_DIR) + "/zeromerge-calibrate " + arguments + " >" + log.string() + " 2>&1";
    const int status = std::system(command.c_str());
    std::ostringstream text;
    text << std::ifstream(log).rdbuf();
    said = text.str();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  fs::path folder;
  std::string said;
};

TEST_F(Calibrate, WritesAProfileThatCanBeRead) {
  const std::string out = (folder / "profile.txt").string();
  ASSERT_EQ(run("profile --model " ZEROMERGE_TEST_MODEL " --threads 2 --text " + (folder / "a.txt").string() +
                " --prompt-tokens 300 --budget 0.2,0.4 --out " + out),
            0)
      << said;
  const auto profile = zeromerge::HeadProfile::load(out);
  EXPECT_EQ(profile.layers(), 30u);
  EXPECT_EQ(profile.kv_heads(), 3u);
  const auto shares = profile.shares(0.2);
  EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), 90.0, 1e-6);
  EXPECT_GT(*std::max_element(shares.begin(), shares.end()), 1.5) << "all heads alike";
  EXPECT_NE(profile.shares(0.4), shares);
  EXPECT_NE(said.find("   29  "), std::string::npos) << "no map: " << said;
}

TEST_F(Calibrate, RefusesWhatItCannotMeasure) {
  const std::string text = " --text " + (folder / "a.txt").string();
  const std::string out = " --out " + (folder / "p.txt").string();
  const std::string model = " --model " ZEROMERGE_TEST_MODEL;
  EXPECT_EQ(run("profile" + model + text + out + " --prompt-tokens 100000"), 2);
  EXPECT_NE(said.find("give a longer text"), std::string::npos) << said;
  EXPECT_EQ(run("profile" + model + text + out + " --budget 0.4,0.2"), 2);
  EXPECT_EQ(run("profile" + model + " --text /no/such/file" + out), 2);
  EXPECT_EQ(run("profile" + model + text), 2);
  EXPECT_EQ(run(""), 2);
  EXPECT_FALSE(fs::exists(folder / "p.txt"));
  EXPECT_EQ(run("profile --help"), 0);
}

}  // namespace
