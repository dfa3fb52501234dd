// What the whole process shares: the policy for new caches, reclaiming, counters.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <string>

#include "plugin_api.h"
#include "reasons.hpp"

namespace zeromerge::plugin {

// Bytes held by all caches together. A cache is counted after each of its calls; `extra` is what it held
// beyond that meanwhile.
class HeldBytes {
 public:
  void change(std::size_t before, std::size_t after, std::size_t extra) {
    const std::lock_guard lock(mutex_);
    now_ += after - before;
    peak_ = std::max(peak_, now_ + extra);
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    peak_ = now_;
  }
  std::size_t peak() const {
    const std::lock_guard lock(mutex_);
    return peak_;
  }

 private:
  mutable std::mutex mutex_;
  std::size_t now_ = 0;
  std::size_t peak_ = 0;
};

class Settings {
 public:
  static Settings& get();

  std::string policy() const;
  // Throws Error if the spec is wrong.
  void set_policy(const std::string& spec);
  bool reclaim() const { return reclaim_.load(); }
  void set_reclaim(bool on) { reclaim_.store(on); }

  // Why the calling thread's last call failed; each thread has its own.
  static void set_error(const std::string& text);
  static const char* last_error();

  HeldBytes held;
  std::atomic<uint64_t> cached_calls{0};
  std::atomic<uint64_t> stateless_calls{0};
  std::atomic<uint64_t> rebuilds{0};
  std::atomic<uint64_t> refusals{0};
  std::atomic<uint64_t> attention_nanoseconds{0};
  Reasons reasons;

 private:
  Settings();
  mutable std::mutex mutex_;
  std::string policy_;
  std::atomic<bool> reclaim_{false};
};

}  // namespace zeromerge::plugin
