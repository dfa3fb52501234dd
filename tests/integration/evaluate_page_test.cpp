// The page that zeromerge-evaluate writes beside its rows, and what a browser makes of it.
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

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Reads a PNG of a browser's (8 bits a channel, not interlaced) and prints its width, its height, how many
// colours it has, and how many pixels have each of the colours given as RRGGBB.
const char* const kPictureScript = R"py(
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
at, packed = 8, b""
while at < len(data):
    size, kind = struct.unpack(">I4s", data[at:at + 8])
    if kind == b"IHDR": width, height, depth, colour = struct.unpack(">IIBB", data[at + 8:at + 18])
    if kind == b"IDAT": packed += data[at + 8:at + 8 + size]
    at += 12 + size
channels = {2: 3, 6: 4}[colour]
raw, stride, above, counts = zlib.decompress(packed), width * channels, bytes(width * channels), {}
for y in range(height):
    filter = raw[y * (stride + 1)]
    row = bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
    for i in range(stride if filter else 0):
        a = row[i - channels] if i >= channels else 0
        b, c = above[i], above[i - channels] if i >= channels else 0
        p = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
        row[i] = (row[i] + (0, a, b, (a + b) // 2, p)[filter]) & 255
    above = row
    for x in range(0, stride, channels):
        pixel = bytes(row[x:x + 3])
        counts[pixel] = counts.get(pixel, 0) + 1
print(width, height, len(counts), *(counts.get(bytes.fromhex(c), 0) for c in sys.argv[2:]))
)py";

class EvaluatePage : public testing::Test {
 protected:
  void SetUp() override {
    folder = fs::temp_directory_path() / ("zeromerge-evaluate-page-test." + std::to_string(getpid()));
    fs::create_directories(folder);
    std::ofstream text(folder / "a.txt");
    for (int i = 0; i < 60; ++i)
      text << "On day " << i << " of the log the keeper wrote that the water stood at " << (i * 37) % 91
           << " feet and that the wind came from the north. ";
    std::ofstream(folder / "picture.py") << kPictureScript;
  }
  void TearDown() override { fs::remove_all(folder); }

  std::string path(const char* name) const { return (folder / name).string(); }

  // The exit code; what was printed is in `said`.
  int run(const std::string& command) {
    const int status = std::system((command + " >" + path("log") + " 2>" + path("errors")).c_str());
    said = read(folder / "log");
    errors = read(folder / "errors");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  int evaluate(const std::string& more) {
    return run(
        std::string(ZEROMERGE_BIN_DIR) + "/zeromerge-evaluate --model " + ZEROMERGE_TEST_MODEL +
        " --threads 1 --prompt-tokens 200 --predict 5 --policy zeromerge --policy h2o --budget 20%,40% "
        "--text " +
        path("a.txt") + " --json " + path("rows.json") + " " + more);
  }

  std::string browser() {
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"})
      if (run(std::string("command -v ") + name) == 0) return name;
    return "";
  }
  // By a browser that shows nothing; `flags` say what it does.
  int render(const std::string& flags, const fs::path& page) {
    return run(
        "HOME=" + folder.string() + " timeout 180 " + browser_name +
        " --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --user-data-dir=" +
        path("profile") + " " + flags + " file://" + page.string());
  }

  struct Picture {
    int width = 0, height = 0, colours = 0, first = 0, second = 0;
  };
  // With the pixels that have the first and the second policy's colour.
  Picture picture(const char* png) {
    Picture p;
    EXPECT_EQ(run("python3 " + path("picture.py") + " " + path(png) + " 2a78d6 d95926"), 0) << errors;
    std::istringstream(said) >> p.width >> p.height >> p.colours >> p.first >> p.second;
    return p;
  }

  fs::path folder;
  std::string said, errors, browser_name;
};

TEST_F(EvaluatePage, IsWrittenWithTheHeadsOfTheRunThatIsAskedFor) {
  ASSERT_EQ(evaluate("--html " + path("page.html")), 0) << errors;
  const json first = json::parse(read(folder / "rows.json"));
  ASSERT_EQ(first["rows"].size(), 4u);
  for (const json& row : first["rows"]) {
    EXPECT_GT(row["decode_tokens_per_second"], 0.0);
    EXPECT_GT(row["prompt_tokens_per_second"], 0.0);
  }
  const json& heads = first["heads"];
  EXPECT_EQ(heads["policy"], "h2o") << "the last policy";
  EXPECT_EQ(heads["budget"], "20%") << "the first budget";
  EXPECT_EQ(heads["tokens"], 200);
  ASSERT_EQ(heads["layers"].size(), 30u);
  for (const json& layer : heads["layers"]) {
    ASSERT_EQ(layer.size(), 3u);
    for (const json& head : layer) {
      EXPECT_EQ(head["entries"], 40);
      ASSERT_EQ(head["kept"].size(), 64u);
      int sum = 0;
      for (const json& kept : head["kept"]) sum += kept.get<int>();
      EXPECT_EQ(sum, 40);
      EXPECT_EQ(head["kept"][63], 3) << "the last tokens stay: 3 of the 200 are in the last of 64 stretches";
    }
  }
  const std::string page = read(folder / "page.html");
  EXPECT_TRUE(has(page, "id=\"map-capacity\""));
  EXPECT_TRUE(has(page, "<code>h2o</code> at 20% on <code>a.txt</code>"));

  // Of a finished file: only the run whose heads are new is run again.
  ASSERT_EQ(evaluate("--html " + path("page.html") + " --heads-of zeromerge@40%"), 0) << errors;
  const json second = json::parse(read(folder / "rows.json"));
  EXPECT_EQ(second["rows"], first["rows"]);
  EXPECT_EQ(second["heads"]["policy"], "zeromerge");
  EXPECT_EQ(second["heads"]["layers"][0][0]["entries"], 80);
  EXPECT_TRUE(has(errors, "zeromerge:budget=40%,rollback=0"));
  EXPECT_FALSE(has(errors, "a.txt, h2o"));
  EXPECT_TRUE(has(read(folder / "page.html"), "<code>zeromerge</code> at 40% on <code>a.txt</code>"));

  EXPECT_EQ(evaluate("--html " + path("page.html") + " --heads-of zeromerge@7%"), 2);
  EXPECT_TRUE(has(errors, "none of the runs")) << errors;
  EXPECT_EQ(evaluate("--html " + path("missing") + "/page.html"), 2);
  EXPECT_TRUE(has(errors, "--html")) << errors;
}

TEST_F(EvaluatePage, IsRenderedByABrowser) {
  browser_name = browser();
  if (browser_name.empty()) GTEST_SKIP() << "no browser: install the package chromium";
  ASSERT_EQ(evaluate("--html " + path("page.html")), 0) << errors;

  ASSERT_EQ(render("--dump-dom", folder / "page.html"), 0) << errors;
  for (const char* part : {"id=\"chart-kl-bytes\"", "id=\"chart-kl-speed\"", "<polyline class=\"line c1\"",
                           "id=\"map-capacity\"", "Against the first policy"})
    EXPECT_TRUE(has(said, part)) << part;

  ASSERT_EQ(render("--window-size=1200,2000 --screenshot=" + path("page.png"), folder / "page.html"), 0)
      << errors;
  const Picture whole = picture("page.png");
  EXPECT_EQ(whole.width, 1200);
  EXPECT_EQ(whole.height, 2000);
  EXPECT_GT(whole.colours, 100);

  // The chart alone: both policies' lines and marks are to be seen.
  const std::string page = read(folder / "page.html");
  const std::size_t style = page.find("<style>"), chart = page.find("<figure id=\"chart-kl-bytes\"");
  std::ofstream(folder / "chart.html")
      << "<!DOCTYPE html><meta charset=\"utf-8\">" << page.substr(style, page.find("</style>") + 8 - style)
      << page.substr(chart, page.find("</figure>", chart) + 9 - chart);
  ASSERT_EQ(render("--window-size=600,520 --screenshot=" + path("chart.png"), folder / "chart.html"), 0)
      << errors;
  const Picture alone = picture("chart.png");
  EXPECT_GT(alone.colours, 50);
  EXPECT_GT(alone.first, 100) << "pixels of the first policy";
  EXPECT_GT(alone.second, 100) << "pixels of the second policy";
}

}  // namespace
