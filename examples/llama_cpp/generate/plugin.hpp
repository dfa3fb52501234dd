// The zeromerge plug-in as this process has loaded it.
#pragma once

#include <string>

#include "plugin_api.h"

namespace generate {

class Plugin {
 public:
  Plugin();  // throws if it is not loaded

  void configure(const std::string& policy,
                 bool reclaim) const;  // UsageError: the plug-in refuses the policy
  void finish_prompt() const;
  void begin_second_reading() const;
  void end_second_reading() const;
  void checkpoint() const;
  void rollback() const;
  zeromerge_statistics statistics() const;
  // visit(head) for each kv head of each cache.
  template <class Visit>
  void heads(Visit visit) const {
    get_heads_([](void* context, const zeromerge_head* head) { (*static_cast<Visit*>(context))(*head); },
               &visit);
  }
  std::string last_error() const;

  // Throws unless attention was answered from the caches: figures of a plug-in that stood by would be
  // llama.cpp's own.
  void require_used() const;

 private:
  zeromerge_set_policy_t set_policy_;
  zeromerge_set_reclaim_t set_reclaim_;
  zeromerge_finish_prompt_t finish_prompt_;
  zeromerge_begin_second_reading_t begin_second_reading_;
  zeromerge_end_second_reading_t end_second_reading_;
  zeromerge_checkpoint_t checkpoint_;
  zeromerge_rollback_t rollback_;
  zeromerge_get_statistics_t get_statistics_;
  zeromerge_get_heads_t get_heads_;
  zeromerge_last_error_t last_error_;
};

}  // namespace generate
