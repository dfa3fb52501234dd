#include "generate/kept.hpp"

#include <cstdint>
#include <map>
#include <vector>

namespace generate {
namespace {

nlohmann::json head_json(const zeromerge_head& head) {
  std::vector<std::uint64_t> kept(kStretches, 0);
  for (std::uint64_t i = 0; i < head.entries; ++i) ++kept[head.positions[i] * kStretches / head.tokens];
  return {{"entries", head.entries}, {"kept", kept}};
}

}  // namespace

nlohmann::json kept_of_prompt(const Plugin& plugin) {
  std::uint64_t tokens = 0;
  std::map<std::uint64_t, nlohmann::json> layers;  // layers that the plug-in does not serve have no place
  plugin.heads([&](const zeromerge_head& head) {
    tokens = head.tokens;
    layers[head.layer].push_back(head_json(head));
  });
  nlohmann::json all = nlohmann::json::array();
  for (auto& [number, layer] : layers) all.push_back(std::move(layer));
  return {{"tokens", tokens}, {"layers", std::move(all)}};
}

}  // namespace generate
