// Which head profile the programs take for a model, and the policy that follows from it.
#include "llama_cpp/generate/known_profile.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace {

namespace fs = std::filesystem;
using generate::known_profile;

class KnownProfile : public testing::Test {
 protected:
  KnownProfile()
      : folder_(fs::temp_directory_path() / ("zeromerge-known-profile-test." + std::to_string(getpid()))) {
    fs::create_directories(folder_ / "shipped");
    fs::create_directories(folder_ / "models");
  }
  ~KnownProfile() override { fs::remove_all(folder_); }

  fs::path file(const std::string& name) const {
    std::ofstream(folder_ / name) << "zeromerge-profile 1\n";
    return folder_ / name;
  }
  fs::path known(const std::string& model) const {
    return known_profile(folder_ / "models" / model, folder_ / "shipped");
  }
  fs::path folder_;
};

TEST_F(KnownProfile, IsTheShippedOneOfTheModelsName) {
  const fs::path small = file("shipped/tiny-135m.txt"), large = file("shipped/tiny-1.7b-instruct.txt");
  for (const char* model : {"tiny-135m.gguf", "Tiny-135M.Q4_1.gguf", "TINY-135M-Q4_K_M.gguf",
                            "tiny-135m.f16.gguf", "tiny-135m-bf16.gguf", "tiny-135m.IQ4_XS.gguf"})
    EXPECT_EQ(known(model), small) << model;
  EXPECT_EQ(known("Tiny-1.7B-Instruct-Q8_0.gguf"), large);
}

TEST_F(KnownProfile, IsNoneForAModelOfAnotherName) {
  file("shipped/tiny-135m.txt");
  for (const char* model : {"tiny.gguf", "tiny-135m-instruct.gguf", "tiny-135m-instruct.Q4_1.gguf",
                            "my-tiny-135m.gguf", "tiny-135mb.gguf", "other.gguf"})
    EXPECT_EQ(known(model), fs::path()) << model;
  EXPECT_EQ(known_profile(folder_ / "tiny-135m.gguf", folder_ / "no such folder"), fs::path());
}

TEST_F(KnownProfile, BesideTheModelCountsMore) {
  file("shipped/tiny-135m.txt");
  const fs::path own = file("models/tiny-135m.Q4_1.profile");
  EXPECT_EQ(known("tiny-135m.Q4_1.gguf"), own);
  EXPECT_EQ(known("tiny-135m.Q8_0.gguf"), folder_ / "shipped" / "tiny-135m.txt");
}

TEST_F(KnownProfile, IsNotTakenWhereAPolicysTextCannotNameIt) {
  file("models/a,b.profile");
  EXPECT_EQ(known("a,b.gguf"), fs::path());
}

TEST(DefaultPolicy, IsBestWithTheProfileThatIsKnown) {
  EXPECT_EQ(generate::default_policy({}), "best:budget=5%");
  EXPECT_EQ(generate::default_policy("/models/a.profile"), "best:budget=5%,profile=/models/a.profile");
}

}  // namespace
