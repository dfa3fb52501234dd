// How fast does llama.cpp decode with the plug-in, at depth? Beside its own attention in all of its settings,
// and with what the kernels give apart from what compression adds.
#include <iostream>
#include <string_view>

#include "engine/contenders.hpp"
#include "engine/decoder.hpp"
#include "engine/group.hpp"
#include "engine/options.hpp"
#include "engine/rows.hpp"
#include "generate/program.hpp"

namespace {

using namespace bench;

// Besides the field: the limit, and programs that are not ours.
std::vector<Contender> with_others(std::vector<Contender> contenders, const Options& options) {
  Contender empty = contenders.front();
  empty.name = kEmpty;
  empty.empty = true;
  contenders.insert(contenders.begin(), empty);
  const auto add_rivals = [&](const std::vector<std::string>& rivals, bool nothing_held) {
    for (const std::string& rival : rivals) {
      const std::size_t equals = rival.find('=');
      contenders.push_back({rival.substr(0, equals), "", empty.job, rival.substr(equals + 1), nothing_held});
    }
  };
  add_rivals(options.empty_rivals, true);
  add_rivals(options.rivals, false);
  return contenders;
}

void add_notes(Report& report, const Options& options) {
  const std::string steps = std::to_string((options.predict + 1) * options.repetitions);
  report.note(
      options.copied
          ? "The past of llama.cpp is synthetic: the state of 512 computed tokens, copied until the context "
            "is full; the last 64 tokens are computed."
          : "The whole past was computed.");
  report.note("Medians of " + std::to_string(options.repetitions) + " bursts of " +
              std::to_string(options.predict) + " steps, contenders in turns; all contexts grow by " + steps +
              " tokens meanwhile.");
  report.note("x its fastest: against the best of llama.cpp's settings measured at that context.");
  report.note(
      "kernel gives: full / llama.cpp flash f16; compression adds: the policy / full; both on the plug-in.");
  if (!options.rivals.empty())
    report.note(
        "Rivals compute the whole prompt, with their own defaults for what the bench does not set; their "
        "caches "
        "hold whole blocks. Their model's own work differs from llama.cpp's: what a cache costs is ms less "
        "the ms of "
        "the same program with an empty context.");
  report.note("of empty: of llama.cpp's rate with nothing in its cache, measured in the same turns.");
}

int run(int argc, char** argv) {
  const auto parsed = parse_options(Kind::engine, argc, argv);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  const auto& options = std::get<Options>(parsed);
  const generate::Scratch scratch;
  const Field field(options, scratch);
  const std::vector<Contender> contenders = with_others(field.contenders(), options);
  Report report("engine", engine_columns());
  report.machine() = describe_run(options);
  add_notes(report, options);
  for (const std::int32_t context : options.contexts) {
    Group group(options, contenders, context, field.prompt(context), scratch);
    for (Json& row : engine_rows(context, group.run())) report.add(std::move(row));
    report.write(options.json.string());  // a long sweep that is stopped leaves what it has
  }
  report.print(std::cout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--decoder") return bench::decoder_main();
  return generate::program_main("bench/run engine", argc, argv, run);
}
