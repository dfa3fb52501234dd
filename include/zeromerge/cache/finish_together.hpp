// Several layers end their prompts at once: what can be refused is, before the first of them changes, and a
// budget over layers is asked about all of them.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "zeromerge/cache/prompt_end.hpp"
#include "zeromerge/core/errors.hpp"

namespace zeromerge {

// Layers that are asked about together.
struct LayerList {
  std::vector<std::size_t> numbers{};   // in the model
  std::vector<std::size_t> kv_heads{};  // of each
};

namespace detail {

// The ratings of layers that end their prompts together. Unless they are kept in the end, what rating has
// changed is taken back, whatever has thrown.
template <class Layer>
class RatedLayers {
 public:
  explicit RatedLayers(std::span<Layer* const> layers) : layers_(layers) { ratings_.reserve(layers.size()); }
  RatedLayers(const RatedLayers&) = delete;
  RatedLayers& operator=(const RatedLayers&) = delete;
  ~RatedLayers() {
    for (std::size_t i = 0; !kept_ && i < ratings_.size(); ++i) layers_[i]->take_back(ratings_[i]);
  }

  void rate() {
    for (Layer* layer : layers_) layer->rate_prompt(ratings_.emplace_back());
  }
  void keep() noexcept { kept_ = true; }
  std::span<PromptRatings> ratings() noexcept { return ratings_; }

 private:
  std::span<Layer* const> layers_;
  std::vector<PromptRatings> ratings_;
  bool kept_ = false;
};

// Throws Error unless these layers, which share a budget, end a prompt of the same tokens.
template <class Layer>
void check_same_tokens(std::span<Layer* const> layers) {
  for (const Layer* layer : layers)
    if (layer->tokens() != layers[0]->tokens())
      fail("finish_prompt: layers ", layers[0]->index(), " and ", layer->index(),
           " share a budget and end prompts of ", layers[0]->tokens(), " and ", layer->tokens(),
           " tokens; feed all layers the same tokens before");
}

// [layers][kv_heads]: of each of them by itself, or of all together.
template <class Layer>
std::vector<std::vector<std::size_t>> capacities_of(std::span<Layer* const> layers,
                                                    std::span<PromptRatings> ratings, const LayerList& list) {
  std::vector<std::vector<std::size_t>> all;
  if (list.numbers.empty()) {
    for (std::size_t i = 0; i < layers.size(); ++i) all.push_back(layers[i]->capacities(ratings[i]));
    return all;
  }
  PromptRatings joint;
  for (PromptRatings& own : ratings) {
    for (auto& head : own.for_budget) joint.for_budget.push_back(std::move(head));
    own.for_budget.clear();
  }
  const auto capacities = layers[0]->capacities(joint, list);
  auto from = capacities.begin();
  for (const std::size_t heads : list.kv_heads) {
    all.emplace_back(from, from + static_cast<std::ptrdiff_t>(heads));
    from += static_cast<std::ptrdiff_t>(heads);
  }
  return all;
}

}  // namespace detail

// Ends the prompts of several layers; Layer: LayerCache or AnyLayer, all with one policy. A budget that needs
// all layers compares the entries of those that are still in their prompt. All end theirs or, on Error, none:
// if the budget is impossible, layers that share it hold different numbers of tokens, or a score cannot rate
// one.
template <class Layer>
void finish_together(std::span<Layer* const> layers) {
  std::vector<Layer*> open;
  for (Layer* layer : layers)
    if (layer->in_prompt() && layer->tokens() != 0) open.push_back(layer);
  const std::span<Layer* const> ending(open);
  LayerList list;  // of those that share a budget
  const bool shared = open.size() > 1 && open[0]->shares_budget();
  for (std::size_t i = 0; shared && i < open.size(); ++i) {
    list.numbers.push_back(open[i]->index());
    list.kv_heads.push_back(open[i]->shape().kv_heads);
  }
  // What can be refused without a rating is, before that takes its time.
  if (shared) {
    detail::check_same_tokens(ending);
    (void)open[0]->capacities({}, list);
  } else {
    for (const Layer* layer : layers)
      if (layer->in_prompt()) (void)layer->capacities({});
  }
  detail::RatedLayers<Layer> rated(ending);
  rated.rate();
  const auto capacities = detail::capacities_of(ending, rated.ratings(), list);
  rated.keep();
  for (std::size_t i = 0; i < open.size(); ++i) open[i]->finish_prompt(rated.ratings()[i], capacities[i]);
  for (Layer* layer : layers)
    if (!shared && layer->tokens() == 0) layer->finish_prompt();  // with nothing in it
}

}  // namespace zeromerge
