#include "generate/second_reading.hpp"

#include <algorithm>
#include <cstddef>
#include <span>

namespace generate {
namespace {

constexpr std::size_t kPart = 1024;  // tokens of the prompt at once
constexpr std::size_t kCue = 8;      // of the part before, where the next one begins

}  // namespace

void read_again(Session& session, const Model& model, const Plugin& plugin, const Tokens& prompt) {
  const Session::Place place = session.place();
  plugin.begin_second_reading();
  for (std::size_t first = 0; first < prompt.size(); first += kPart) {
    Tokens part =
        model.tokenize(first == 0 ? "\n\nRepeat the previous context exactly:\n\n"
                                  : "\n\nRepeat the part of the previous context exactly, from:\n\n",
                       /*whole=*/false);
    const std::size_t cue = std::min(first, kCue);
    const std::size_t last = std::min(prompt.size(), first + kPart);
    part.insert(part.end(), prompt.begin() + static_cast<std::ptrdiff_t>(first - cue),
                prompt.begin() + static_cast<std::ptrdiff_t>(last));
    session.feed_all(part);
    session.return_to(place);
  }
  plugin.end_second_reading();
}

}  // namespace generate
