// zeromerge-evaluate as it is called: rows, going on where it stopped, refusals.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class Evaluate : public testing::Test {
 protected:
  void SetUp() override {
    folder = fs::temp_directory_path() / ("zeromerge-evaluate-test." + std::to_string(getpid()));
    fs::create_directories(folder);
    for (const char* name : {"a.txt", "b.txt"}) {
      std::ofstream text(folder / name);
      for (int i = 0; i < 60; ++i)
        text << "In line " << i << " of the log of " << name << " the keeper wrote that the water stood at "
             << (i * 37 + name[0]) % 91 << " feet and that the wind came from the north. ";
    }
  }
  void TearDown() override { fs::remove_all(folder); }

  // The exit code; what was printed is in `said`.
  int run(const std::string& arguments) {
    const fs::path log = folder / "log";
    const std::string command = std::string(ZEROMERGE_BIN_DIR) + "/zeromerge-evaluate --model " +
                                ZEROMERGE_TEST_MODEL + " --threads 2 " + arguments + " >" + log.string() +
                                " 2>&1";
    const int status = std::system(command.c_str());
    std::ostringstream text;
    text << std::ifstream(log).rdbuf();
    said = text.str();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string path(const char* name) const { return (folder / name).string(); }
  json rows() const { return json::parse(std::ifstream(folder / "rows.json")); }

  fs::path folder;
  std::string said;
};

TEST_F(Evaluate, MeasuresContinuationAndGoesOnWhereItStopped) {
  const std::string common =
      " --prompt-tokens 200 --predict 6 --policy zeromerge --policy zeromerge:merge=drop,refit=64"
      " --budget 20% --json " +
      path("rows.json");
  ASSERT_EQ(run("--task continuation --text " + path("a.txt") + common), 0) << said;
  const json first = rows();
  ASSERT_EQ(first["rows"].size(), 2u);
  for (const json& row : first["rows"]) {
    EXPECT_EQ(row["task"], "continuation");
    EXPECT_EQ(row["text"], "a.txt");
    EXPECT_EQ(row["budget"], "20%");
    EXPECT_EQ(row["entries"], 41);  // of the 206 tokens seen
    EXPECT_GT(row["bytes"], 0);
    EXPECT_GT(row["kl_mean"], 1e-4);
    EXPECT_GE(row["top1_agreement"], 0.0);
    EXPECT_LE(row["top1_agreement"], 1.0);
    EXPECT_TRUE(row["nll_delta"].is_number());
  }
  ASSERT_EQ(first["floor"].size(), 1u);
  EXPECT_LT(first["floor"][0]["kl_mean"], 1e-4) << "everything kept is rounding away";
  EXPECT_NE(said.find("zeromerge:merge=drop,refit=64"), std::string::npos);

  ASSERT_EQ(run("--text " + path("a.txt") + " " + path("b.txt") + common), 0) << said;
  const json second = rows();
  ASSERT_EQ(second["rows"].size(), 4u);
  EXPECT_EQ(second["rows"][0], first["rows"][0]);
  EXPECT_EQ(second["rows"][1], first["rows"][1]);
  EXPECT_EQ(said.find("a.txt, llama.cpp"), std::string::npos) << "a text that is done was measured again";

  EXPECT_EQ(run("--prompt-tokens 150 --text " + path("a.txt") + " --json " + path("rows.json")), 2);
  EXPECT_NE(said.find("measured with"), std::string::npos) << said;
  EXPECT_EQ(rows(), second) << "a refused run changed the file";
}

// With everything kept a policy answers what the full cache answers.
TEST_F(Evaluate, AsksForNeedlesAndGoesOnWhereItStopped) {
  const std::string common = "--task needles --text " + path("a.txt") +
                             " --prompt-tokens 240 --policy zeromerge --json " + path("rows.json");
  ASSERT_EQ(run(common + " --budget 900"), 0) << said;
  const json first = rows();
  ASSERT_EQ(first["floor"].size(), 1u);
  const json& full = first["floor"][0];
  EXPECT_EQ(full["policy"], "full");
  EXPECT_EQ(full["counted"], 5) << "of all that is asked";
  EXPECT_GE(full["right"], 3) << "the model does not understand the questions";
  ASSERT_EQ(first["rows"].size(), 1u);
  const json& row = first["rows"][0];
  EXPECT_EQ(row["task"], "needles");
  EXPECT_EQ(row["asked"], "after");
  EXPECT_EQ(row["text"], "a.txt");
  EXPECT_EQ(row["policy"], "zeromerge");
  EXPECT_EQ(row["budget"], "900");
  EXPECT_EQ(row["counted"], full["right"]) << "what the full cache cannot answer does not count";
  EXPECT_EQ(row["right"], full["right"]);
  EXPECT_EQ(row["entries"], full["entries"]);
  EXPECT_GT(row["bytes"], 0);

  ASSERT_EQ(run(common + " --budget 900,24"), 0) << said;
  const json second = rows();
  ASSERT_EQ(second["rows"].size(), 2u);
  EXPECT_EQ(second["rows"][0], row);
  EXPECT_EQ(second["rows"][1]["entries"], 24);
  EXPECT_EQ(second["rows"][1]["counted"], full["right"]);
  EXPECT_LT(second["rows"][1]["right"], full["right"]) << "a tenth of a text that nobody asked about yet";
  EXPECT_EQ(said.find("zeromerge:budget=900"), std::string::npos) << "a row that is done was measured again";
  ASSERT_EQ(run(common + " --budget 900,24"), 0) << said;
  EXPECT_EQ(said.find("questions/s"), std::string::npos) << "there was nothing left to measure";

  EXPECT_EQ(run(common + " --budget 24 --seeds 2"), 2);
  EXPECT_NE(said.find("measured with"), std::string::npos) << said;
  EXPECT_EQ(rows(), second) << "a refused run changed the file";
}

// What nobody had asked for yet is kept by those who look at the whole prompt, once or twice.
TEST_F(Evaluate, FindsNeedlesByReplayAndBySecondReading) {
  ASSERT_EQ(run("--task needles --text " + path("a.txt") +
                " --prompt-tokens 240 --policy best --policy kvzip --policy snapkv --budget 84 --json " +
                path("rows.json")),
            0)
      << said;
  const json all = rows()["rows"];
  ASSERT_EQ(all.size(), 3u);
  for (std::size_t i : {0, 1}) {
    EXPECT_GE(all[i]["right"], 3) << all[i];
    EXPECT_GT(all[i]["right"], all[2]["right"]) << "the last tokens know what will be asked";
    EXPECT_EQ(all[i]["entries"], all[2]["entries"]);
  }
}

TEST_F(Evaluate, AsksForNeedlesWithinThePrompt) {
  ASSERT_EQ(run("--task needles --asked in --text " + path("a.txt") +
                " --prompt-tokens 240 --policy zeromerge --budget 900 --json " + path("rows.json")),
            0)
      << said;
  const json row = rows()["rows"].at(0);
  EXPECT_EQ(row["asked"], "in");
  EXPECT_EQ(row["counted"], row["right"]);
  EXPECT_GE(row["counted"], 3);
}

TEST_F(Evaluate, AsksGeneratedSessionsInBothModes) {
  const std::string common =
      "--task scbench --prompt-tokens 300 --policy zeromerge --json " + path("rows.json");
  ASSERT_EQ(run(common + " --budget 900"), 0) << said;
  const json first = rows();
  ASSERT_EQ(first["floor"].size(), 20u) << "modes, kinds, first and later turns";
  ASSERT_EQ(first["rows"].size(), 20u);
  for (std::size_t i = 0; i < 20; ++i) {
    const json& row = first["rows"][i];
    const json& full = first["floor"][i];
    for (const char* name : {"mode", "kind", "turn", "counted"}) EXPECT_EQ(row[name], full[name]);
    EXPECT_EQ(row["task"], "scbench");
    EXPECT_EQ(row["score"], full["score"]) << row;
    EXPECT_EQ(row["answer_nll_full"], full["answer_nll"]);
    EXPECT_NEAR(row["answer_nll"].get<double>(), full["answer_nll"].get<double>(), 0.02) << row;
    const std::size_t questions = row["kind"] == "math.find" ? 3 : 5;
    EXPECT_EQ(row["counted"], row["turn"] == "first" ? 1 : questions - 1);
    // Nothing has been asked or said before the first question, whichever the mode.
    for (const json& other : first["floor"]) {
      const bool same = full["turn"] == "first" && other["turn"] == "first" && other["kind"] == full["kind"];
      EXPECT_NEAR(other["answer_nll"].get<double>(), full["answer_nll"].get<double>(), same ? 0.02 : 1e9);
    }
  }
  EXPECT_EQ(first["settings"]["seeds"], 1);
  ASSERT_EQ(run(common + " --budget 900"), 0) << said;
  EXPECT_EQ(said.find("questions/s"), std::string::npos) << "there was nothing left to measure";
  EXPECT_EQ(rows(), first);
}

TEST_F(Evaluate, RefusesWhatItCannotMeasure) {
  EXPECT_EQ(run("--task needles"), 2);
  EXPECT_NE(said.find("--text is required"), std::string::npos) << said;
  EXPECT_EQ(run("--task needles --budget 50 --prompt-tokens 100 --text " + path("a.txt")), 2);
  EXPECT_NE(said.find("give at least"), std::string::npos) << said;
  EXPECT_EQ(run("--task needles --budget 50 --prompt-tokens 100000 --text " + path("a.txt")), 2);
  EXPECT_NE(said.find("give a longer text"), std::string::npos) << said;
  EXPECT_EQ(run("--task needles --asked before --text " + path("a.txt")), 2);
  EXPECT_EQ(run("--task needles --policy h2o --budget 50 --heads-of h2o@50 --text " + path("a.txt")), 2);
  EXPECT_NE(said.find("only the page of --task continuation maps heads"), std::string::npos) << said;
  EXPECT_EQ(run("--task scbench --budget 50 --prompt-tokens 40"), 2);
  EXPECT_NE(said.find("smallest context"), std::string::npos) << said;

  EXPECT_EQ(run("--text " + path("missing.txt")), 2);
  EXPECT_NE(said.find("missing.txt"), std::string::npos);
  EXPECT_EQ(run("--text " + path("a.txt") + " --prompt-tokens 100000"), 2);
  EXPECT_NE(said.find("give a longer text"), std::string::npos) << said;
  EXPECT_EQ(run("--text " + path("a.txt") + " --policy zeromerge:budget=5%"), 2);
  EXPECT_EQ(run("--text " + path("a.txt") + " --policy zeromerge:colour=red --prompt-tokens 100"), 2);
  EXPECT_NE(said.find("colour"), std::string::npos) << said;
  EXPECT_EQ(run("--text " + path("a.txt") + " --budget nonsense"), 2);
  EXPECT_EQ(run("--task dancing --text " + path("a.txt")), 2);
  EXPECT_EQ(run("--text " + path("a.txt") + " " + path("a.txt")), 2);
  std::ofstream(folder / "other.json") << "[1, 2]";
  EXPECT_EQ(run("--text " + path("a.txt") + " --json " + path("other.json")), 2);
  EXPECT_EQ(run("--help"), 0);
}

}  // namespace
