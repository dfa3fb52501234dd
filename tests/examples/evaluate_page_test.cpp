// The page that zeromerge-evaluate makes of its findings.
#include "llama_cpp/evaluate/page/page.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <regex>
#include <string>

#include "llama_cpp/evaluate/page/html.hpp"
#include "llama_cpp/evaluate/page/scale.hpp"

namespace {

using evaluate::page;
using nlohmann::json;

json row(const char* text, const char* policy, const char* budget, double kl, double bytes) {
  return {{"task", "continuation"}, {"text", text},          {"policy", policy},
          {"budget", budget},       {"entries", 51},         {"bytes", bytes},
          {"kl_mean", kl},          {"top1_agreement", 0.9}, {"nll_delta", 0.01}};
}

json findings() {
  json rows = {row("a.txt", "zeromerge", "5%", 0.111, 1e6), row("a.txt", "h2o", "5%", 0.222, 1e6),
               row("b.txt", "zeromerge", "5%", 0.133, 1e6), row("b.txt", "h2o", "5%", 0.244, 1e6),
               row("a.txt", "zeromerge", "20%", 0.0155, 4e6)};
  for (json& r : rows) r["decode_tokens_per_second"] = 31.25;
  return {{"settings", {{"model", "m.gguf"}, {"prompt_tokens", 2048}}},
          {"command", "zeromerge-evaluate --text a.txt"},
          {"rows", rows},
          {"floor", {row("a.txt", "full", "100%", 2.5e-6, 2e7), {{"task", "needles"}, {"bytes", 9e9}}}}};
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// What is between two marks; empty if one is missing.
std::string between(const std::string& text, const std::string& from, const std::string& to) {
  const std::size_t begin = text.find(from);
  const std::size_t end = begin == std::string::npos ? begin : text.find(to, begin);
  return end == std::string::npos ? "" : text.substr(begin, end - begin);
}

// Every element that is opened is closed in its turn.
void expect_well_formed(const std::string& html) {
  const std::regex tag("<(/?)([a-z0-9]+)[^>]*?(/?)>");
  std::vector<std::string> open;
  for (std::sregex_iterator at(html.begin(), html.end(), tag), end; at != end; ++at) {
    const std::string name = (*at)[2];
    if (name == "meta" || name == "wbr" || (*at)[3].length() != 0) continue;
    if ((*at)[1].length() == 0) {
      open.push_back(name);
      continue;
    }
    ASSERT_FALSE(open.empty()) << name << " is closed, but was never opened";
    ASSERT_EQ(open.back(), name);
    open.pop_back();
  }
  EXPECT_TRUE(open.empty()) << open.back() << " stays open";
}

TEST(EvaluatePage, ShowsEveryRow) {
  const std::string html = page(findings());
  const std::string all = between(html, "<details>", "</details>");
  for (const char* kl : {"0.111", "0.222", "0.133", "0.244", "0.0155", "2.5e-6"})
    EXPECT_TRUE(has(all, std::string("<td>") + kl + "</td>")) << kl;
  EXPECT_EQ(count(all, "<tr>"), 1u + 6u);
  EXPECT_TRUE(has(html, "<td>0.122</td>")) << "the mean of 0.111 and 0.133";
  EXPECT_TRUE(has(html, "2048"));
  EXPECT_TRUE(has(html, "zeromerge-evaluate --text a.txt"));
  expect_well_formed(html);
}

TEST(EvaluatePage, DrawsAPointPerPolicyAndBudget) {
  const std::string html = page(findings());
  const std::string memory = between(html, "id=\"chart-kl-bytes\"", "</figure>");
  EXPECT_EQ(count(memory, "class=\"marker"), 3u);
  EXPECT_EQ(count(memory, "<polyline"), 2u);
  EXPECT_TRUE(has(memory, "<title>h2o at 5%: mean KL 0.233, "));
  EXPECT_TRUE(has(memory, "KV cache (MiB, log scale)"));
  EXPECT_TRUE(has(memory, "mean KL divergence (nats, log scale)"));
  const std::string speed = between(html, "id=\"chart-kl-speed\"", "</figure>");
  EXPECT_EQ(count(speed, "class=\"marker"), 3u);
  EXPECT_TRUE(has(speed, "<title>zeromerge at 20%: 31.2 tokens/s, mean KL 0.0155</title>"));
  EXPECT_TRUE(has(html, "f16 weights"));
}

TEST(EvaluatePage, ComparesWithTheFirstPolicy) {
  const std::string html = page(findings());
  const std::string ratios = between(html, "Against the first policy", "</table>");
  EXPECT_TRUE(has(ratios, "<td>1.92×</td>"));  // sqrt(0.222 / 0.111 * 0.244 / 0.133)
  EXPECT_TRUE(has(ratios, "worse"));
  EXPECT_EQ(count(ratios, "class=\"interval\""), 1u) << "the first policy is not compared with itself";
  EXPECT_FALSE(has(ratios, "nan"));
}

TEST(EvaluatePage, EscapesWhatItWasGiven) {
  json f = findings();
  const std::string evil = "<script>alert(\"1\")</script>&'";
  for (const char* key : {"text", "policy", "budget"}) f["rows"][0][key] = evil;
  f["command"] = evil;
  f["settings"]["model"] = evil;
  f["heads"] = {{"text", evil},
                {"policy", evil},
                {"budget", evil},
                {"tokens", 128},
                {"layers", {{{{"entries", 3}, {"kept", {1, 2}}}}}}};
  f["rows"].push_back({{"task", "needles"},
                       {"asked", evil},
                       {"text", evil},
                       {"policy", evil},
                       {"budget", evil},
                       {"bytes", 1e6},
                       {"right", 1},
                       {"counted", 2}});
  f["rows"].push_back({{"task", "scbench"},
                       {"mode", evil},
                       {"kind", evil},
                       {"policy", evil},
                       {"budget", evil},
                       {"bytes", 1e6},
                       {"score", 1},
                       {"turn", evil}});
  const std::string html = page(f);
  EXPECT_FALSE(has(html, "<script"));
  EXPECT_FALSE(has(html, "(\"1\")"));
  EXPECT_TRUE(has(html, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"));
  expect_well_formed(html);
}

TEST(EvaluatePage, FetchesNothing) {
  json f = findings();
  f["rows"][0]["text"] = "http://example.org/a.txt";
  const std::string html = page(f);
  for (const char* way : {"src=", "href=", "url(", "@import", "<link", "<script", "<img", "<iframe"})
    EXPECT_FALSE(has(html, way)) << way;
}

TEST(EvaluatePage, OfNothingSaysSo) {
  for (const json& nothing :
       {json(), json::object(), json{{"rows", json::array()}, {"floor", json::array()}}}) {
    const std::string html = page(nothing);
    EXPECT_TRUE(has(html, "There are no rows yet."));
    EXPECT_FALSE(has(html, "<figure"));
    expect_well_formed(html);
  }
}

TEST(EvaluatePage, ShowsNeedlesAlone) {
  json f = {{"rows", json::array()}};
  for (const char* asked : {"in", "after"})
    for (const int right : {1, 2})
      f["rows"].push_back({{"task", "needles"},
                           {"asked", asked},
                           {"text", "t" + std::to_string(right)},
                           {"policy", "h2o"},
                           {"budget", "5%"},
                           {"entries", 50},
                           {"bytes", 2e6},
                           {"right", right},
                           {"counted", 4}});
  f["floor"] = {{{"task", "needles"}, {"asked", "in"}, {"right", 8}, {"counted", 10}}};
  const std::string html = page(f);
  EXPECT_TRUE(has(html, "asked in the prompt: with everything kept the model answers 8 of 10 questions"));
  EXPECT_FALSE(has(html, "id=\"continuation\""));
  EXPECT_TRUE(has(html, "<title>h2o at 5%: 37.5, 1.91 MiB</title>")) << "3 of 8";
  EXPECT_TRUE(has(html, "<td>37.5%</td>"));
  EXPECT_TRUE(has(html, "id=\"chart-needles-asked-in-the-prompt\""));
  EXPECT_TRUE(has(html, "id=\"chart-needles-asked-after-compression\""));
  EXPECT_TRUE(has(html, "answered right (%)"));
  EXPECT_TRUE(has(html, "<td>2 of 4</td>"));
  expect_well_formed(html);
}

TEST(EvaluatePage, ShowsTurnsOfOneContext) {
  json f = {{"rows", json::array()}};
  for (const int turn : {1, 2})
    f["rows"].push_back({{"task", "scbench"},
                         {"mode", "session"},
                         {"kind", "lookup"},
                         {"policy", "h2o"},
                         {"budget", "5%"},
                         {"bytes", 2e6},
                         {"turn", turn},
                         {"score", 0.25 * turn},
                         {"answer_nll", 2.0},
                         {"answer_nll_full", 1.0 + 0.5 * turn},
                         {"counted", turn}});
  f["floor"] = {{{"task", "scbench"}, {"mode", "session"}, {"kind", "lookup"}, {"score", 0.9}}};
  const std::string html = page(f);
  const std::string scores = between(html, "id=\"chart-scbench-score", "</figure>");
  EXPECT_TRUE(has(scores, ">everything kept</text>"));
  EXPECT_TRUE(has(html, "<td>0.417</td>")) << "(0.25 + 2 * 0.5) / 3";
  EXPECT_TRUE(has(html, "<td>+0.167</td>")) << "(0.5 + 2 * 0) / 3";
  EXPECT_TRUE(has(html, "id=\"chart-scbench-score-lookup--session\""));
  EXPECT_TRUE(has(html, "id=\"chart-scbench-nll-lookup--session\""));
  expect_well_formed(html);
}

TEST(EvaluatePage, MapsTheHeadsOfARun) {
  json f = findings();
  const auto head = [](int entries, int first, int last) {
    return json{{"entries", entries}, {"kept", {first, 0, 0, last}}};
  };
  f["heads"] = {{"text", "a.txt"},
                {"policy", "h2o"},
                {"budget", "5%"},
                {"tokens", 40},
                {"layers", {{head(10, 1, 9), head(11, 1, 10)}, {head(4, 0, 4), head(7, 7, 0)}}}};
  const std::string html = page(f);
  const std::string capacity = between(html, "id=\"map-capacity\"", "</figure>");
  EXPECT_EQ(count(capacity, "class=\"cell "), 4u);
  EXPECT_TRUE(has(capacity, "class=\"cell f8\"><title>layer 0, head 1: 11 entries</title>")) << "the most";
  EXPECT_TRUE(has(capacity, "class=\"cell f1\"><title>layer 1, head 0: 4 entries</title>")) << "the least";
  const std::string kept = between(html, "id=\"map-kept\"", "</section>");
  EXPECT_EQ(count(kept, "<figure"), 2u) << "one per head";
  EXPECT_TRUE(has(kept, "<title>layer 1, head 1: 7 of 40 kept</title>"));
  // Of layer 0, head 0: a tenth of the first stretch, nothing in two, nine tenths of the last.
  const std::string first = between(kept, "<figure", "<rect");
  for (const char* part : {"class=\"f0\" d=\"M115.0 8.0h150.0v8.0h-150.0z\"",
                           "class=\"f3\" d=\"M40.0 8.0h75.0", "class=\"f7\" d=\"M265.0 8.0h75.0"})
    EXPECT_TRUE(has(first, part)) << part << " in " << first;
  expect_well_formed(html);
}

TEST(EvaluatePage, LeavesOutWhatIsMissingOrNoNumber) {
  json f = findings();
  f["rows"][1]["kl_mean"] = nullptr;
  f["rows"][2].erase("decode_tokens_per_second");
  f["rows"][3]["kl_mean"] = 0.0;
  f["rows"][4]["bytes"] = 0;
  f["rows"].push_back("no row");
  f["floor"] = json::array();
  f["heads"] = {{"layers", {{json::object()}}}};
  const std::string html = page(f);
  EXPECT_FALSE(has(html, "nan"));
  EXPECT_FALSE(has(html, "inf\""));
  EXPECT_TRUE(has(html, "–"));
  EXPECT_TRUE(has(html, "All 5 rows")) << "what is no object is no row";
  expect_well_formed(html);
}

TEST(EvaluateScale, HasRoundTicksWithinItsEnds) {
  for (const bool log : {false, true})
    for (const double low : {1e-7, 0.003, 0.9, 1234.0})
      for (const double ratio : {1.0, 1.02, 1.7, 9.0, 80.0, 1e6}) {
        const auto scale = evaluate::fit({.title = "", .log = log}, {low, low * ratio});
        ASSERT_TRUE(scale.has_value());
        EXPECT_GE(scale->at(low), 0.0);
        EXPECT_LE(scale->at(low * ratio), 1.0);
        const auto ticks = scale->ticks();
        EXPECT_GE(ticks.size(), 2u) << log << " " << low << " " << ratio;
        EXPECT_LE(ticks.size(), 9u) << log << " " << low << " " << ratio;
        for (const double tick : ticks) {
          EXPECT_GE(scale->at(tick), -1e-6);
          EXPECT_LE(scale->at(tick), 1.0 + 1e-6);
        }
      }
  EXPECT_FALSE(evaluate::fit({.title = "", .log = true}, {0.0, -1.0}).has_value());
  EXPECT_FALSE(evaluate::fit({.title = ""}, {std::numeric_limits<double>::quiet_NaN()}).has_value());
}

TEST(EvaluateHtml, WritesNumbersAsPeopleDo) {
  EXPECT_EQ(evaluate::count(1234567), "1,234,567");
  EXPECT_EQ(evaluate::count(-1234), "-1,234");
  EXPECT_EQ(evaluate::count(999), "999");
  EXPECT_EQ(evaluate::significant(1.24e-6, 2), "1.2e-6");
  EXPECT_EQ(evaluate::with_sign(0.5, 2), "+0.50");
  EXPECT_EQ(evaluate::fixed(std::numeric_limits<double>::infinity(), 2), "–");
}

}  // namespace
