// The kinds of measured run; each in a fresh process, each returning its figures.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "generate/job.hpp"
#include "generate/model.hpp"
#include "generate/plugin.hpp"

namespace generate {

// {prefill_tokens_per_s, decode_tokens_per_s, decode_step_ms_median, kv_bytes, kv_bytes_peak, engine_bytes,
// rss_bytes, rss_peak_bytes, text}
nlohmann::json run_speed(const Job& job, const std::optional<Plugin>& plugin);
// {continuation}: job.continuation, or the likeliest tokens if that is empty; the logits before each of them
// go to job.logits_file
nlohmann::json run_reference(const Job& job);
// {kl_mean, top1_agreement, nll_delta, prompt_tokens_per_second, decode_tokens_per_second} to the rows of
// job.logits_file, over job.continuation (one token alone has no decode speed); with the plug-in
// {entries_per_head, kv_bytes} at its end too, and if job.heads {heads: kept_of_prompt()}
nlohmann::json run_compare(const Job& job, const std::optional<Plugin>& plugin);
// {heads: kept_of_prompt()} of job.prompt
nlohmann::json run_heads(const Job& job, const std::optional<Plugin>& plugin);

}  // namespace generate
