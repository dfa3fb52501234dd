#include "sight.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace zeromerge::plugin {
namespace {

bool same(Cells a, Cells b, std::size_t first, std::size_t last) {
  return std::memcmp(a.data() + first, b.data() + first, (last - first) * sizeof a[0]) == 0;
}

// Whether the row sees `seen`, its own cell and nothing else.
bool continues(Cells row, Cells seen, std::size_t own) {
  return seen[own] == kHidden && same(row, seen, 0, own) && same(row, seen, own + 1, row.size());
}

// Whether the row sees nothing but what `seen` shows and its own cell, and of the run's own cells the newest.
bool loses_the_oldest(Cells row, const Run& run, Cells seen, std::size_t own) {
  const auto sees = [row](std::size_t cell) { return row[cell] == kVisible; };
  if (!std::is_partitioned(run.cells.rbegin(), run.cells.rend(), sees)) return false;
  for (std::size_t cell = 0; cell < row.size(); ++cell)
    if (sees(cell) && seen[cell] != kVisible && cell != own) return false;
  return true;
}

// Reads rows one after another into the runs that they continue.
class Reader {
 public:
  Reader(const MaskRows& mask, const std::vector<std::size_t>& written) : mask_(mask), written_(written) {}

  Sight read() {
    for (std::size_t t = 0; t < mask_.tokens; ++t)
      if (!fits(t))
        leave_out(t, Reason::mask_values);
      else if (!join(t))
        begin(t);
    for (std::size_t i = 0; i < sight_.runs.size(); ++i) finish(sight_.runs[i]);
    return std::move(sight_);
  }

 private:
  // Whether the row sees its own cell, and no value says anything but "visible" or "hidden". (Counted without
  // a way out, which compilers do many at a time.)
  bool fits(std::size_t t) const {
    const Cells row = mask_.row(t);
    if (written_[t] >= row.size() || row[written_[t]] != kVisible) return false;
    std::size_t others = 0;
    for (const std::uint16_t x : row) others += x != kVisible && x != kHidden ? 1 : 0;
    return others == 0;
  }

  void leave_out(std::size_t t, Reason reason) {
    sight_.others.push_back(t);
    sight_.reason = reason;
  }

  void add(std::size_t i, std::size_t t) {
    sight_.runs[i].rows.push_back(t);
    sight_.runs[i].cells.push_back(written_[t]);
  }

  // The run that was joined last is usually the next one's as well.
  bool join(std::size_t t) {
    for (std::size_t k = 0; k < sight_.runs.size(); ++k) {
      const std::size_t i = (last_ + k) % sight_.runs.size();
      if (join(t, i)) {
        last_ = i;
        return true;
      }
    }
    return false;
  }
  bool join(std::size_t t, std::size_t i) {
    Run& run = sight_.runs[i];
    const Cells row = mask_.row(t);
    std::vector<std::uint16_t>& seen = seen_[i];
    if (run.kind == Run::Kind::block) {
      if (!same(row, seen, 0, row.size())) return false;
      add(i, t);
      return true;
    }
    if (row[run.cells.back()] != kVisible) return false;
    if (run.kind == Run::Kind::causal && continues(row, seen, written_[t])) {
      seen[written_[t]] = kVisible;
    } else if (loses_the_oldest(row, run, seen, written_[t])) {
      run.kind = Run::Kind::window;
      seen.assign(row.begin(), row.end());
    } else {
      return false;
    }
    add(i, t);
    return true;
  }

  // The first row of a run must see nothing of this call but itself, or, of a block, all of it.
  void begin(std::size_t t) {
    const Cells row = mask_.row(t);
    bool earlier = false, later = false;
    for (std::size_t other = 0; other < mask_.tokens; ++other) {
      if (other == t || written_[other] >= row.size() || row[written_[other]] != kVisible) continue;
      (other < t ? earlier : later) = true;
    }
    if (earlier) return leave_out(t, later ? Reason::non_causal : Reason::branches);
    Run run;
    run.kind = later ? Run::Kind::block : Run::Kind::causal;
    run.past.assign(row.begin(), row.end());
    last_ = sight_.runs.size();
    sight_.runs.push_back(std::move(run));
    seen_.emplace_back(row.begin(), row.end());
    add(last_, t);
  }

  static void finish(Run& run) {
    for (const std::size_t cell : run.cells) run.past[cell] = kHidden;
    run.tokens = static_cast<std::size_t>(std::count(run.past.begin(), run.past.end(), kVisible));
  }

  const MaskRows& mask_;
  const std::vector<std::size_t>& written_;
  Sight sight_;
  std::vector<std::vector<std::uint16_t>> seen_;  // by run: what its newest row sees
  std::size_t last_ = 0;
};

}  // namespace

Sight read_sight(const MaskRows& mask, const std::vector<std::size_t>& written) {
  return Reader(mask, written).read();
}

}  // namespace zeromerge::plugin
