#include "engine/rows.hpp"

#include <algorithm>

namespace bench {
namespace {

// Medians at one context, 0 where there is none.
struct Rates {
  double flash = 0;    // llama.cpp's flash attention, f16
  double fastest = 0;  // the best of llama.cpp's settings here
  double empty = 0;    // llama.cpp's with nothing in the cache: the limit
  double full = 0;     // everything kept, through the plug-in
};

bool plain(const Contender& contender) {
  return !contender.plugged() && contender.command.empty() && !contender.empty;
}

Rates rates_of(const std::vector<Measured>& measured) {
  Rates rates;
  for (const Measured& m : measured) {
    const double rate = median(m.speeds);
    if (m.contender->name == kFlash) rates.flash = rate;
    if (m.contender->name == kEmpty) rates.empty = rate;
    if (m.contender->name == kFull) rates.full = rate;
    if (plain(*m.contender)) rates.fastest = std::max(rates.fastest, rate);
  }
  return rates;
}

Json ratio(double a, double b) { return b > 0 ? Json(a / b) : Json(); }

Json figure(const nlohmann::json& statistics, const char* key) {
  const auto found = statistics.find(key);
  return found == statistics.end() || found->is_null() ? Json() : Json(found->get<double>());
}

// The kernels' part, which is the same for every policy, and on top of it the policy's own.
void add_parts(Json& row, const Contender& contender, double rate, const Rates& rates) {
  const bool plugged = contender.plugged();
  row["kernel_gives"] = plugged ? ratio(rates.full, rates.flash) : Json();
  row["compression_adds"] = plugged && contender.name != kFull ? ratio(rate, rates.full) : Json();
}

Json row_of(std::int32_t context, const Measured& m, const Rates& rates) {
  const Contender& contender = *m.contender;
  const double rate = median(m.speeds);
  const auto [least, most] = std::minmax_element(m.speeds.begin(), m.speeds.end());
  Json row{{"context", contender.empty ? 0 : context},
           {"policy", contender.name},
           {"budget", contender.budget.empty() ? Json() : Json(contender.budget)},
           {"decode_tokens_per_s", rate},
           {"decode_tokens_per_s_min", *least},
           {"decode_tokens_per_s_max", *most},
           {"ms_per_token", 1e3 / rate},
           {"ratio_to_llama_cpp", ratio(rate, rates.flash)},
           {"ratio_to_llama_cpp_fastest", ratio(rate, rates.fastest)}};
  add_parts(row, contender, rate, rates);
  row["share_of_empty_context"] = ratio(rate, rates.empty);
  row["kv_bytes"] = figure(m.statistics, "kv_bytes");
  row["kv_mib"] = row["kv_bytes"].is_null() ? Json() : Json(row["kv_bytes"].get<double>() / (1 << 20));
  row["entries"] = figure(m.statistics, "entries");
  row["entries_per_head"] = figure(m.statistics, "entries_per_head");
  row["tokens"] = figure(m.statistics, "tokens");
  return row;
}

}  // namespace

std::vector<Column> engine_columns() {
  return {{"context", "context"},
          {"policy", "policy"},
          {"budget", "budget"},
          {"decode_tokens_per_s", "tokens/s", "%.1f"},
          {"decode_tokens_per_s_min", "min", "%.1f"},
          {"decode_tokens_per_s_max", "max", "%.1f"},
          {"ms_per_token", "ms", "%.1f"},
          {"ratio_to_llama_cpp", "x flash f16", "%.2f"},
          {"ratio_to_llama_cpp_fastest", "x its fastest", "%.2f"},
          {"kernel_gives", "kernel gives", "%.2f"},
          {"compression_adds", "compression adds", "%.2f"},
          {"share_of_empty_context", "of empty", "%.2f"},
          {"kv_mib", "KV MiB", "%.1f"},
          {"entries_per_head", "entries/head"}};
}

std::vector<Json> engine_rows(std::int32_t context, const std::vector<Measured>& measured) {
  const Rates rates = rates_of(measured);
  std::vector<Json> rows;
  for (const Measured& m : measured) rows.push_back(row_of(context, m, rates));
  return rows;
}

}  // namespace bench
