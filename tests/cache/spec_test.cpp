#include "zeromerge/cache/spec.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/refusal.hpp"

namespace zeromerge {
namespace {

using test::contains;
using test::refusal;

TEST(Spec, ANameAloneHasNoKeys) {
  const Spec spec("full");
  EXPECT_EQ(spec.name(), "full");
  EXPECT_FALSE(spec.has("budget"));
  EXPECT_EQ(spec.word("profile", "none"), "none");
}

TEST(Spec, KeysAndValuesAreRead) {
  const Spec spec("zm:budget=5%,profile=/tmp/a b=c.txt,alpha=0.25,sinks=8,heads=two");
  EXPECT_EQ(spec.text(), "zm:budget=5%,profile=/tmp/a b=c.txt,alpha=0.25,sinks=8,heads=two");
  EXPECT_EQ(spec.name(), "zm");
  EXPECT_TRUE(spec.has("budget"));
  EXPECT_EQ(spec.word("profile", ""), "/tmp/a b=c.txt");
  EXPECT_EQ(spec.number("alpha", 0, 1, 9), 0.25);
  EXPECT_EQ(spec.whole("sinks", 0, 4), 8u);
  EXPECT_EQ(spec.choice("heads", {"one", "two"}, 0), 1u);
  EXPECT_EQ(spec.number("decay", 0, 1, 0.5), 0.5);
  EXPECT_EQ(spec.whole("least", 0, 32), 32u);
  EXPECT_EQ(spec.choice("merge", {"a", "b"}, 1), 1u);
}

TEST(Spec, ATextOfAnotherFormIsRefused) {
  for (const char* text : {"", ":budget=5%"})
    EXPECT_TRUE(contains(refusal([&] { Spec{text}; }), "expected name:key=value")) << text;
  for (const char* text :
       {"zm:", "zm:budget", "zm:=5", "zm:budget=", "zm:budget=5%,", "zm:,budget=5%", "zm:a=1,,b=2"})
    EXPECT_TRUE(contains(refusal([&] { Spec{text}; }), "expected key=value, got '")) << text;
  EXPECT_TRUE(contains(refusal([] { Spec{"zm:a=1,b=2,a=3"}; }), "the key 'a' comes twice"));
}

TEST(Spec, AnUnknownKeyIsRefusedWithTheKnownOnes) {
  const Spec spec("zm:budgte=5%");
  EXPECT_TRUE(contains(refusal([&] {
                         spec.allow_only({"budget", "tail"});
                       }),
                       "unknown key 'budgte'; zm knows budget, tail"));
  EXPECT_EQ(refusal([&] { spec.allow_only({"budget", "budgte"}); }), "");
}

TEST(Spec, AnUnknownWordIsRefusedWithTheKnownOnes) {
  EXPECT_TRUE(contains(refusal([] {
                         Spec("zm:heads=x").choice("heads", {"uniform", "adaptive"}, 0);
                       }),
                       "heads=x is not one of uniform, adaptive"));
  EXPECT_TRUE(contains(refusal([] { Spec("zm:storage=f64").storage("storage", StorageType::f16); }),
                       "f32, f16, bf16, q8, q4"));
  EXPECT_EQ(Spec("zm:storage=bf16").storage("storage", StorageType::f16), StorageType::bf16);
  EXPECT_EQ(Spec("zm:storage=q4").storage("storage", StorageType::f16), StorageType::q4);
  EXPECT_EQ(Spec("zm").storage("storage", StorageType::f16), StorageType::f16);
}

TEST(Spec, ANumberOutOfRangeOrWithOtherTextIsRefused) {
  for (const char* value : {"2", "-0.1", "x", "1x", "nan", "inf", "1e999", " 1", "1 ", "--1", "."})
    EXPECT_TRUE(contains(refusal([&] { Spec("zm:alpha=" + std::string(value)).number("alpha", 0, 1, 0); }),
                         "must be a number in [0, 1]"))
        << value;
  EXPECT_EQ(Spec("zm:alpha=+1e-1").number("alpha", 0, 1, 0), 0.1);
  EXPECT_TRUE(contains(refusal([] { Spec("zm:sinks=2.5").whole("sinks", 0, 4); }), "must be a whole number"));
  EXPECT_TRUE(contains(refusal([] { Spec("zm:sinks=-1").whole("sinks", 0, 4); }), "must be a number in"));
}

TEST(Spec, AmountsAreSharesOrCounts) {
  const auto amount = [](const std::string& value) {
    return Spec("zm:budget=" + value).amount("budget", count(7));
  };
  EXPECT_TRUE(amount("5%").is_share);
  EXPECT_DOUBLE_EQ(amount("5%").value, 0.05);
  EXPECT_DOUBLE_EQ(amount("12.5%").value, 0.125);
  EXPECT_DOUBLE_EQ(amount("100%").value, 1.0);
  EXPECT_TRUE(amount("0.05").is_share);
  EXPECT_DOUBLE_EQ(amount("0.05").value, 0.05);
  EXPECT_FALSE(amount("410").is_share);
  EXPECT_EQ(amount("410").of(9), 410u);
  EXPECT_FALSE(amount("1").is_share);
  EXPECT_EQ(Spec("zm").amount("budget", count(7)).of(0), 7u);
  for (const char* value : {"101%", "-5%", "-1", "1.5", "x", "%", "5%%", "1e10", "nan%", "5 %"})
    EXPECT_TRUE(contains(refusal([&] { amount(value); }),
                         "must be a share (5% or 0.05, at most 100%) or a whole count"))
        << value;
}

}  // namespace
}  // namespace zeromerge
