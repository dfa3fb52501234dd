// What zeromerge-generate does for a model whose head profile ships, when no policy is given.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace {

namespace fs = std::filesystem;

TEST(KnownProfile, IsTakenByTheDefaultPolicy) {
  const fs::path json =
      fs::temp_directory_path() / ("zeromerge-known-profile-test." + std::to_string(getpid()) + ".json");
  const std::string command =
      ZEROMERGE_BIN_DIR
      "/zeromerge-generate --model " ZEROMERGE_TEST_MODEL
      " --prompt 'A profile says how the heads of a model share its cache.' --predict 2 --threads 2 --json " +
      json.string() + " >/dev/null 2>&1";
  const int status = std::system(command.c_str());
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << command;
  const auto figures = nlohmann::json::parse(std::ifstream(json));
  fs::remove(json);
  const std::string policy = figures["runs"][0]["policy"];
  EXPECT_EQ(policy.find("best:budget=5%,profile="), 0u) << policy;
  EXPECT_NE(policy.find("profiles/smollm2-135m-instruct.txt"), std::string::npos) << policy;
}

}  // namespace
