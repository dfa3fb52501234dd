// What a program may ask of a loaded plug-in. Each function is obtained by its name from the registry:
//
//   ggml_backend_reg_t reg = ggml_backend_reg_by_name("zeromerge");      // null: the plug-in is not loaded
//   auto set = (zeromerge_set_policy_t)ggml_backend_reg_get_proc_address(reg, "zeromerge_set_policy");
//
// Programs that know nothing of the plug-in configure it by the environment: ZEROMERGE_POLICY="spec",
// ZEROMERGE_RECLAIM=1.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Counters since the plug-in was loaded (or since "zeromerge_reset_statistics"); bytes are of this moment.
struct zeromerge_statistics {
  uint64_t kv_bytes;       // held by the library's caches now: keys, values and all per-entry state
  uint64_t kv_bytes_peak;  // the most they held at once
  uint64_t engine_bytes;  // resident pages of the engine's own KV cells of the layers that the plug-in serves
  uint64_t entries;       // entries over all sequences, layers and kv heads
  uint64_t tokens;        // tokens over all sequences and layers
  uint64_t caches;        // live caches (one per sequence and layer)
  uint64_t cached_calls;  // attention calls whose rows were all answered from caches
  uint64_t stateless_calls;  // attention calls of which rows were answered from the engine's cells and mask
                             // as they are; "zeromerge_get_reasons" says why
  uint64_t rebuilds;         // caches (as counted in `caches`) rebuilt from the engine's cells
  uint64_t refusals;         // calls refused because the cells they need were given back
  double attention_seconds;  // wall time spent in all of these calls
};

// What one kv head of one cache keeps at this moment.
struct zeromerge_head {
  uint64_t stream;            // the sequence, counted over the contexts that are alive
  uint64_t layer;             // of the model
  uint64_t head;              // kv head of the layer
  uint64_t tokens;            // that its sequence holds
  uint64_t entries;           // that are kept
  const uint64_t* positions;  // [entries], each below `tokens`; a merged entry has that of its oldest token
};

// Why attention calls were not answered from a cache.
struct zeromerge_reason {
  const char* name;    // "window", "non_causal", ...
  const char* advice;  // what it means and what can be done, a sentence
  uint64_t calls;      // since the plug-in was loaded, or "zeromerge_reset_statistics"
};

// Statistics, reasons and heads may be asked for at any time, from any thread. The functions that change
// something are for moments when no context computes.

// "zeromerge_set_policy": for every cache that starts afterwards. False: the spec is wrong and nothing
// changed; `error` (may be null) then holds the reason, cut to `error_size`.
typedef bool (*zeromerge_set_policy_t)(const char* spec, char* error, size_t error_size);
// "zeromerge_set_reclaim": give the pages of the engine's cells back to the system once the caches hold their
// content.
typedef void (*zeromerge_set_reclaim_t)(bool on);
// "zeromerge_finish_prompt": ends the prompt of every sequence now; the first token that is decoded behind it
// would do it otherwise. False: see the last error.
typedef bool (*zeromerge_finish_prompt_t)(void);
// "zeromerge_begin_second_reading", "zeromerge_end_second_reading": for policies that choose by a second
// reading of the prompt (kvzip). Between the two the program feeds the context once more behind the prompt,
// after an instruction to repeat it, all or in parts; then it drops these tokens itself
// (llama_memory_seq_rm). False: see the last error.
typedef bool (*zeromerge_begin_second_reading_t)(void);
typedef bool (*zeromerge_end_second_reading_t)(void);
// "zeromerge_checkpoint": every cache remembers what it holds, policy state included, in place of what it
// remembered before; it is counted in kv_bytes. False: see the last error.
typedef bool (*zeromerge_checkpoint_t)(void);
// "zeromerge_rollback": every cache holds again what it remembered, any number of times. The engine must drop
// its own tokens after that moment (llama_memory_seq_rm) before its next call, which then goes on from there.
// False, with nothing changed: no checkpoint was taken, or a sequence was started anew, edited or read again
// since; see the last error.
typedef bool (*zeromerge_rollback_t)(void);
// "zeromerge_trim": frees the sequences that have had no row in the last `idle` graphs of their context; 0:
// all of them. The engine does not say when it drops a sequence, so those that it has dropped keep their
// bytes until their cells are written again, wiped (llama_memory_clear with data), or this is called. A
// sequence that goes on after all is read again from the engine's cells; where those were given back
// (reclaiming) it cannot.
typedef bool (*zeromerge_trim_t)(uint64_t idle);
// "zeromerge_get_statistics"
typedef void (*zeromerge_get_statistics_t)(struct zeromerge_statistics* statistics);
// "zeromerge_get_reasons": calls visit(context, reason) for each, whether it has come up or not.
typedef void (*zeromerge_reason_visitor_t)(void* context, const struct zeromerge_reason* reason);
typedef void (*zeromerge_get_reasons_t)(zeromerge_reason_visitor_t visit, void* context);
// "zeromerge_get_heads": calls visit(context, head) for each kv head of each live cache, layers and heads
// rising within a sequence. What `head` points to is valid during the call, which must not call the plug-in.
typedef void (*zeromerge_head_visitor_t)(void* context, const struct zeromerge_head* head);
typedef void (*zeromerge_get_heads_t)(zeromerge_head_visitor_t visit, void* context);
// "zeromerge_reset_statistics": counters to zero, the peak to what is held now.
typedef void (*zeromerge_reset_statistics_t)(void);
// "zeromerge_last_error": why the last call on this thread was refused, or an empty string. Valid until the
// next call on this thread.
typedef const char* (*zeromerge_last_error_t)(void);

#ifdef __cplusplus
}
#endif
