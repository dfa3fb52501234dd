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

// Throws Error unless these layers, which share a budget, end a prompt of the same tokens.
template <class Layer>
void check_same_tokens(std::span<Layer* const> layers) {
  for (const Layer* layer : layers)
    if (layer->tokens() != layers[0]->tokens())
      fail("finish_prompt: layers ", layers[0]->index(), " and ", layer->index(),
           " share a budget and end prompts of ", layers[0]->tokens(), " and ", layer->tokens(),
           " tokens; feed all layers the same tokens before");
}

// Layers that end their prompts together: rated, divided, ended. Unless they are ended, what rating has
// changed is taken back, whatever has thrown.
template <class Layer>
class PromptsEnd {
 public:
  explicit PromptsEnd(std::span<Layer* const> layers) : layers_(layers) {
    ratings_.reserve(layers.size());
    capacities_.reserve(layers.size());
  }
  PromptsEnd(const PromptsEnd&) = delete;
  PromptsEnd& operator=(const PromptsEnd&) = delete;
  ~PromptsEnd() {
    for (std::size_t i = 0; !ended_ && i < ratings_.size(); ++i) layers_[i]->take_back(ratings_[i]);
  }

  // Each by itself.
  void divide_alone() {
    for (Layer* layer : layers_) {
      PromptRatings& own = ratings_.emplace_back();
      layer->rate_prompt(own);
      capacities_.push_back(layer->capacities(own));
      if (!layer->shares_budget()) own.for_budget = {};  // it has been asked
    }
  }
  // All at once.
  void divide_together(const LayerList& list) {
    PromptRatings joint;
    for (Layer* layer : layers_) {
      PromptRatings& own = ratings_.emplace_back();
      layer->rate_prompt(own);
      for (auto& head : own.for_budget) joint.for_budget.push_back(std::move(head));
      own.for_budget = {};
    }
    const auto capacities = layers_[0]->capacities(joint, list);
    auto from = capacities.begin();
    for (const std::size_t heads : list.kv_heads) {
      capacities_.emplace_back(from, from + static_cast<std::ptrdiff_t>(heads));
      from += static_cast<std::ptrdiff_t>(heads);
    }
  }
  void end() {
    ended_ = true;
    for (std::size_t i = 0; i < layers_.size(); ++i) layers_[i]->finish_prompt(ratings_[i], capacities_[i]);
  }

 private:
  std::span<Layer* const> layers_;
  std::vector<PromptRatings> ratings_;                // [layers]
  std::vector<std::vector<std::size_t>> capacities_;  // [layers][kv_heads]
  bool ended_ = false;
};

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
  const bool shared = open.size() > 1 && open[0]->shares_budget();
  detail::PromptsEnd<Layer> prompts(ending);
  // What can be refused without a rating is, before that takes its time.
  if (shared) {
    LayerList list;
    for (const Layer* layer : open) {
      list.numbers.push_back(layer->index());
      list.kv_heads.push_back(layer->shape().kv_heads);
    }
    detail::check_same_tokens(ending);
    (void)open[0]->capacities({}, list);
    prompts.divide_together(list);
  } else {
    for (const Layer* layer : layers)
      if (layer->in_prompt()) (void)layer->capacities({});
    prompts.divide_alone();
  }
  prompts.end();
  for (Layer* layer : layers)
    if (!shared && layer->tokens() == 0) layer->finish_prompt();  // with nothing in it
}

}  // namespace zeromerge
