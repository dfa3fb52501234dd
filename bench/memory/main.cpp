// How much memory does a prompt take, in llama.cpp with the plug-in and in plain llama.cpp? What the caches
// hold, by the library's own count, and what the process has, by the system's. Prompts are computed, not
// copied: cells that are restored are cells that were there, which is what reclaiming avoids.
#include <algorithm>
#include <iostream>
#include <string_view>

#include "engine/contenders.hpp"
#include "engine/options.hpp"
#include "generate/program.hpp"
#include "support/report.hpp"

namespace {

using namespace bench;
using nlohmann::json;

std::vector<Column> columns() {
  return {{"context", "context"},
          {"policy", "policy"},
          {"budget", "budget"},
          {"kv_mib", "KV MiB", "%.1f"},
          {"kv_peak_mib", "KV peak", "%.1f"},
          {"engine_mib", "llama.cpp's cells", "%.1f"},
          {"held_mib", "both", "%.1f"},
          {"share_of_llama_cpp", "of flash f16", "%.3f"},
          {"rss_mib", "VmRSS", "%.1f"},
          {"rss_peak_mib", "VmHWM", "%.1f"},
          {"prefill_tokens_per_s", "prompt tokens/s", "%.1f"},
          {"decode_tokens_per_s", "decode tokens/s", "%.1f"}};
}

json measure(const Contender& contender, std::int32_t context, const Field& field, const Options& options,
             const generate::Scratch& scratch) {
  generate::Job job = contender.job;
  job.task = generate::Task::speed;
  job.label = std::to_string(context) + " tokens, " + contender.name +
              (contender.budget.empty() ? "" : " " + contender.budget);
  job.reclaim = contender.plugged();
  job.prompt = field.prompt(context);
  job.prompt.resize(static_cast<std::size_t>(context));
  job.ctx = (context + options.predict + 255) / 256 * 256;  // as llama.cpp pads a cache
  return generate::run_job(job, options.plugin, scratch);
}

// Bytes under the key itself, and MiB for the table. Plain llama.cpp's cells are its cache, counted once.
void add_bytes(Json& row, const json& figures) {
  const double kv = figures.at("kv_bytes");
  const double engine = figures.value("engine_bytes", 0.0);
  const std::pair<const char*, double> bytes[] = {{"kv", kv},
                                                  {"kv_peak", figures.at("kv_bytes_peak")},
                                                  {"engine", engine},
                                                  {"held", kv + engine},
                                                  {"rss", figures.at("rss_bytes")},
                                                  {"rss_peak", figures.at("rss_peak_bytes")}};
  for (const auto& [name, count] : bytes) {
    const bool absent = std::string_view(name) == "engine" && !figures.contains("engine_bytes");
    row[std::string(name) + "_bytes"] = absent ? Json() : Json(count);
    row[std::string(name) + "_mib"] = absent ? Json() : Json(count / (1 << 20));
  }
}

Json row_of(const Contender& contender, std::int32_t context, const json& figures, double& flash) {
  Json row{{"context", context},
           {"policy", contender.name},
           {"budget", contender.budget.empty() ? Json() : Json(contender.budget)},
           {"reclaim", contender.plugged()}};
  add_bytes(row, figures);
  if (contender.name == kFlash) flash = row["held_bytes"];
  row["share_of_llama_cpp"] = row["held_bytes"].get<double>() / flash;
  row["entries"] = figures.contains("entries") ? Json(figures["entries"].get<double>()) : Json();
  row["prefill_tokens_per_s"] = figures.at("prefill_tokens_per_s").get<double>();
  row["decode_tokens_per_s"] = figures.at("decode_tokens_per_s").get<double>();
  return row;
}

void add_notes(Report& report, const Options& options) {
  report.note("Each line is a process of its own: the whole prompt computed, then " +
              std::to_string(options.predict) + " tokens decoded; reclaiming is on in the plug-in's.");
  report.note(
      "KV: keys, values and all state per entry, by the library's count; for llama.cpp its cells in use. "
      "both: "
      "KV and what of llama.cpp's cells is resident, at the end; of flash f16: of that line's both.");
  report.note("VmRSS at the end and VmHWM hold the mapped model and llama.cpp's buffers too.");
  report.note("The speeds are of one run each, not interleaved: `bench/run engine` measures speed.");
}

int run(int argc, char** argv) {
  const auto parsed = parse_options(Kind::memory, argc, argv);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  const auto& options = std::get<Options>(parsed);
  const generate::Scratch scratch;
  const Field field(options, scratch);
  Report report("memory", columns());
  report.machine() = describe_run(options);
  add_notes(report, options);
  for (const std::int32_t context : options.contexts) {
    double flash = 0;  // the field's first
    for (const Contender& contender : field.contenders())
      report.add(row_of(contender, context, measure(contender, context, field, options, scratch), flash));
    report.write(options.json.string());  // a long sweep that is stopped leaves what it has
  }
  report.print(std::cout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return generate::program_main("bench/run memory", argc, argv, run); }
