// The reference's own inputs and outputs, replayed; and what zeromerge-replay says of traces that are wrong.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "replay/program.hpp"
#include "support/isa.hpp"
#include "support/temporary_file.hpp"

namespace replay {
namespace {

using nlohmann::json;
using zeromerge::test::available_isas;
using zeromerge::test::IsaScope;
using zeromerge::test::TemporaryFile;

std::string data(const std::string& name) { return std::string(ZEROMERGE_TEST_DATA) + "/" + name + ".json"; }

json load(const std::string& name) { return json::parse(std::ifstream(data(name))); }

Differences replay_with(const Trace& trace, const zeromerge::Executor& executor) {
  const auto cache = zeromerge::make_cache(reference_policy(trace.args), trace.geometry);
  cache->set_executor(executor);
  return replay(trace, *cache);
}

Differences replay_json(const json& file) { return replay_with(read_trace(file), zeromerge::serial()); }

std::string line(const Differences& differences) {
  std::ostringstream text;
  detail::write(text, differences);
  return text.str();
}

// What the program does with a file and a policy.
struct Outcome {
  int code;
  std::string out;
  std::string err;
};
Outcome run_program(const std::string& path, const std::string& policy = "") {
  std::ostringstream out;
  std::ostringstream err;
  const int code = run(path, policy, out, err);
  return {code, out.str(), err.str()};
}

class ReplayOfTrace : public testing::TestWithParam<const char*> {};

TEST_P(ReplayOfTrace, AgreesAtEveryIsaAndOnAnyNumberOfThreads) {
  const Trace trace = read_trace(std::filesystem::path(data(GetParam())));
  EXPECT_GT(trace.decoded.count, 0u);
  for (const zeromerge::Isa isa : available_isas()) {
    SCOPED_TRACE(zeromerge::isa_name(isa));
    const IsaScope scope(isa);
    const Differences differences = replay_with(trace, zeromerge::serial());
    EXPECT_TRUE(differences.within(2e-5)) << line(differences);
    for (const std::size_t count : {1u, 3u})
      EXPECT_EQ(line(replay_with(trace, zeromerge::threads(count))), line(differences))
          << count << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, ReplayOfTrace,
                         testing::Values("golden/mha_r2", "golden/r1_alpha1_lam1", "golden/r1_max_dot",
                                         "golden/r1_sum_dot_lam8", "golden/r2_max_dot",
                                         "golden/r2_sum_l2_lam9", "golden/r3_max_dot",
                                         "golden/r3_max_l2_lam7", "golden/ratio_budget_r1",
                                         "golden/short_prompt_grows_r2"));
INSTANTIATE_TEST_SUITE_P(Simulated, ReplayOfTrace, testing::Values("replay/group3_dim5"));

TEST(Replay, PrintsOneLineOfJsonAndSucceedsWhereAllAgrees) {
  const auto [code, out, err] = run_program(data("golden/r2_max_dot"));
  EXPECT_EQ(code, kAgrees);
  EXPECT_EQ(err, "");
  ASSERT_EQ(out.find('\n'), out.size() - 1);
  const json report = json::parse(out);
  EXPECT_EQ(report.size(), 6u);
  EXPECT_EQ(report.at("steps"), 30);
  for (const char* key : {"max_err_out", "max_err_keys", "max_err_values", "max_err_mass", "max_err_score"})
    EXPECT_LT(report.at(key).get<double>(), 1e-5) << key;
}

TEST(Replay, ATraceWithoutStepsIsComparedAfterItsPrompt) {
  json file = load("replay/group3_dim5");
  file["steps"] = 0;
  for (const char* key : {"dq", "dk", "dv", "after_step"}) file[key] = json::array();
  const Differences differences = replay_json(file);
  EXPECT_EQ(differences.steps, 0u);
  EXPECT_TRUE(differences.within(kBound)) << line(differences);
}

TEST(Replay, ArgumentsThatAreMissingAreTheReferencesDefaults) {
  json file = load("replay/group3_dim5");
  file["args"] = {{"cache_budget", 12.0}};
  EXPECT_EQ(reference_policy(read_trace(file).args),
            "zeromerge:reference=1,budget=12,tail=0.1,residual=1,alpha=1,decay=0.98,update=max,metric=dot,"
            "storage=f32");
}

TEST(Replay, AmountsBelowOneAreSharesAndLargerOnesTruncatedCounts) {
  json file = load("replay/group3_dim5");
  file["args"] = {{"cache_budget", 0.3}, {"cache_tail", 4.9},     {"cache_dense", 2.0},
                  {"scale_factor", 0.6}, {"shrink_factor", 0.85}, {"score_update", "sum"},
                  {"metric", "l2"}};
  EXPECT_EQ(reference_policy(read_trace(file).args),
            "zeromerge:reference=1,budget=0.3,tail=4,residual=2,alpha=0.6,decay=0.85,update=sum,metric=l2,"
            "storage=f32");
}

TEST(Replay, EveryComparedNumberIsLookedAt) {
  const json intact = load("replay/group3_dim5");
  const std::vector<std::pair<const char*, const char*>> places = {
      {"/prefill_scores/1/22", "max_err_score"},    {"/after_prefill/out/22/5/4", "max_err_out"},
      {"/after_prefill/k/1/10/4", "max_err_keys"},  {"/after_prefill/v/0/0/0", "max_err_values"},
      {"/after_prefill/w/1/0", "max_err_mass"},     {"/after_prefill/s/0/10", "max_err_score"},
      {"/after_step/19/out/0/5/4", "max_err_out"},  {"/after_step/19/k/1/10/4", "max_err_keys"},
      {"/after_step/0/v/0/10/0", "max_err_values"}, {"/after_step/19/w/1/10", "max_err_mass"},
      {"/after_step/7/s/0/5", "max_err_score"}};
  for (const auto& [place, key] : places) {
    SCOPED_TRACE(place);
    json file = intact;
    json& number = file.at(json::json_pointer(place));
    number = number.get<double>() - 0.01;
    const Differences differences = replay_json(file);
    EXPECT_FALSE(differences.within(kBound));
    const json report = json::parse(line(differences));
    for (const auto& [name, value] : report.items()) {
      if (name == "steps") continue;
      EXPECT_NEAR(value.get<double>(), name == key ? 0.01 : 0.0, 1e-4) << name;
    }
  }
}

TEST(Replay, EveryInputCounts) {
  const json intact = load("replay/group3_dim5");
  for (const char* place : {"/q/22/5/4", "/k/22/1/4", "/v/0/0/0", "/dq/19/5/0", "/dk/19/1/4", "/dv/3/0/2"}) {
    SCOPED_TRACE(place);
    json file = intact;
    json& number = file.at(json::json_pointer(place));
    number = number.get<double>() + 0.1;
    EXPECT_FALSE(replay_json(file).within(kBound));
  }
}

TEST(Replay, ADepartureIsReportedAndMakesTheProgramFail) {
  json file = load("replay/group3_dim5");
  file["after_step"][3]["out"][0][0][0] = 7.0;
  const TemporaryFile wrong(file.dump());
  const auto [code, out, err] = run_program(wrong.path());
  EXPECT_EQ(code, kDeparts);
  EXPECT_GT(json::parse(out).at("max_err_out").get<double>(), 1.0);
  EXPECT_EQ(err, "");
}

TEST(Replay, AnotherPolicyIsComparedByItsOutputsWhereEntriesDoNotMatch) {
  const auto [code, out, err] = run_program(data("golden/r2_max_dot"), "zeromerge:budget=20,storage=f32");
  EXPECT_EQ(code, kDeparts);
  const json report = json::parse(out);
  EXPECT_GT(report.at("max_err_out").get<double>(), 1e-3);
  for (const char* key : {"max_err_keys", "max_err_values", "max_err_mass", "max_err_score"})
    EXPECT_TRUE(report.at(key).is_null()) << key;
}

TEST(Replay, AnotherPolicyThatKeepsAsManyEntriesIsComparedSlotBySlot) {
  const auto [code, out, err] =
      run_program(data("golden/r2_max_dot"), "zeromerge:budget=12,sinks=0,residual=2,least=0,storage=f32");
  EXPECT_EQ(code, kDeparts);
  const json report = json::parse(out);
  for (const auto& [name, value] : report.items()) EXPECT_TRUE(value.is_number()) << name;
}

TEST(Replay, NotANumberCountsAsADeparture) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> got{1.0f, nan, 1.0f};
  const std::vector<float> expected{1.0f, 1.0f, 9.0f};
  Differences differences;
  detail::widen(differences.out, got, expected);
  EXPECT_FALSE(differences.within(kBound));
  EXPECT_TRUE(json::parse(line(differences)).at("max_err_out").is_null());
}

TEST(Replay, AMissingFieldIsNamed) {
  const json intact = load("replay/group3_dim5");
  for (const char* parent : {"", "/args", "/after_prefill", "/after_step/7"})
    for (const auto& [key, value] : intact.at(json::json_pointer(parent)).items()) {
      static const std::vector<std::string> kOptional = {"name", "ring", "cache_dense", "shrink_factor"};
      if (std::find(kOptional.begin(), kOptional.end(), key) != kOptional.end()) continue;
      json file = intact;
      file.at(json::json_pointer(parent)).erase(key);
      try {
        (void)read_trace(file);
        ADD_FAILURE() << parent << " without " << key;
      } catch (const zeromerge::Error& error) {
        EXPECT_NE(std::string(error.what()).find("the field '" + key + "' is missing"), std::string::npos)
            << error.what();
      }
    }
}

TEST(Replay, AValueThatCannotBeIsNamed) {
  struct Case {
    const char* place;
    json value;
    const char* says;
  };
  const std::vector<Case> cases = {
      {"/Hq", 5, "Hq must be a multiple of Hkv, got 5 and 2"},
      {"/Hkv", 0, "trace.Hkv: expected a whole number"},
      {"/D", 5.5, "trace.D: expected a whole number"},
      {"/D", 4, "trace.q[0][0]: expected 4 (D) elements, got 5"},
      {"/steps", -1, "trace.steps: expected a whole number"},
      {"/prompt", "23", "trace.prompt: expected a number, got \"23\""},
      {"/prompt", 24, "trace.q: expected 24 (prompt) elements, got 23"},
      {"/steps", 19, "trace.dq: expected 19 (steps) elements, got 20"},
      {"/k/3/1/2", nullptr, "trace.k[3][1][2]: expected a number, got null"},
      {"/k/3/1/2", 1e39, "trace.k[3][1][2]: 1e+39 is not a finite f32"},
      {"/dv/3/1", 1.0, "trace.dv[3][1]: expected an array of 5 (D), got 1"},
      {"/after_prefill/s/1", json::array({1.0}), "trace.after_prefill.s[1]: expected 11"},
      {"/after_step/2/out", json::array(), "trace.after_step[2].out: expected 1"},
      {"/after_step/2", json::array(), "trace.after_step[2]: expected an object, got array"},
      {"/after_step", json::array(), "trace.after_step: expected an array of 20"},
      {"/args/cache_budget", 0, "trace.args.cache_budget: 0 keeps nothing"},
      {"/args/cache_tail", -0.5, "trace.args.cache_tail: must not be negative"},
      {"/args/metric", "cosine", "trace.args.metric: expected \"dot_product\" or \"l2\", got \"cosine\""},
  };
  for (const auto& [place, value, says] : cases) {
    SCOPED_TRACE(place);
    json file = load("replay/group3_dim5");
    file[json::json_pointer(place)] = value;
    try {
      (void)read_trace(file);
      ADD_FAILURE() << "accepted " << value;
    } catch (const zeromerge::Error& error) {
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
    }
  }
}

TEST(Replay, ABrokenFileIsRefused) {
  std::string text = load("replay/group3_dim5").dump();
  for (const auto& broken : {text.substr(0, text.size() / 2), std::string(), std::string("{\"Hq\": NaN}"),
                             std::string("{\"Hq\": 1e999}"), std::string("[]"), std::string(100'000, '[')}) {
    const TemporaryFile file(broken);
    const auto [code, out, err] = run_program(file.path());
    EXPECT_EQ(code, kBadInput) << broken.substr(0, 20);
    EXPECT_EQ(out, "");
    EXPECT_EQ(err.rfind("zeromerge-replay: ", 0), 0u) << err;
  }
  EXPECT_EQ(run_program(data("golden/no_such_case")).code, kBadInput);
  EXPECT_EQ(run_program(ZEROMERGE_TEST_DATA).code, kBadInput);
}

TEST(Replay, ABadOrImpossiblePolicyIsRefused) {
  const std::string trace = data("golden/r2_max_dot");
  for (const auto& [policy, says] :
       {std::pair("h3o", "unknown name 'h3o'"), std::pair("zeromerge:buget=1", "'buget'"),
        std::pair("zeromerge:budget=3", "too few")}) {
    const auto [code, out, err] = run_program(trace, policy);
    EXPECT_EQ(code, kBadInput);
    EXPECT_EQ(out, "");
    EXPECT_NE(err.find(says), std::string::npos) << err;
  }
  json file = load("replay/group3_dim5");
  file["args"]["cache_budget"] = 0.1;  // 2 of 23
  const TemporaryFile impossible(file.dump());
  EXPECT_EQ(run_program(impossible.path()).code, kBadInput);
}

}  // namespace
}  // namespace replay
