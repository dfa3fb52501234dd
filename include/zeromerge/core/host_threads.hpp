// For engines whose operators already run on all their threads: every thread calls with its number (ith of
// nth) and they meet at a barrier. Then no second pool is needed:
//   zeromerge::HostThreads team;                        one for an engine's threads
//   cache = make_cache(spec, geometry, {.executor = team.executor()});
//   team.run(ith, nth, barrier, [&] { cache->layer(l).decode(q, k, v, out); });   on each thread
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "zeromerge/core/parallel.hpp"

namespace zeromerge {

class HostThreads {
 public:
  HostThreads() = default;

  // Loops run on the threads that are in run(), else on the calling thread. Valid as long as this object.
  Executor executor() {
    return [this](std::size_t count, LoopBody body) {
      if (helpers_ != 0 && count > 1) return loop_.run(count, body);
      for (std::size_t i = 0; i < count; ++i) body(i);
    };
  }

  // Called by each of the nth threads, with numbers 0 .. nth - 1. barrier(): returns when all of them have
  // called it. Thread 0 runs job(), the others its loops; none returns before the job is done. If the job
  // throws, so does thread 0's call, and the others return.
  template <class Barrier, class Job>
  void run(std::size_t ith, std::size_t nth, const Barrier& barrier, const Job& job) {
    if (ith != 0) {
      std::uint64_t seen = loop_.loops();
      barrier();
      while (loop_.help(seen)) {
      }
      return;
    }
    loop_.expect(nth);  // the others wait only behind the barrier
    barrier();
    struct Guard {
      HostThreads& team;
      Guard(HostThreads& t, std::size_t helpers) : team(t) { team.helpers_ = helpers; }
      ~Guard() {
        const std::size_t helpers = std::exchange(team.helpers_, 0);
        if (helpers != 0) team.loop_.end(helpers);
      }
    };
    const Guard guard(*this, nth - 1);
    job();
  }

 private:
  SharedLoop loop_{1};
  std::size_t helpers_ = 0;
};

}  // namespace zeromerge
