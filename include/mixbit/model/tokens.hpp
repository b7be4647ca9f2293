// How many tokens a calibration showed each layer: what a router keeps from an expert shows here.
//
//   auto const report = calibrate(m, {}, loop);
//   for (auto const& few : report.tokens.below(256)) std::cout << few.layer << ": " << few.tokens << " tokens\n";
//
// A token is a row of a layer's input: a position that has a value for each input channel (of a convolution, a pixel).
// All calls of a loop are added up; of several runs of the loop by one calibration, as GPTQ makes them, the largest
// counts. A pass counts where it shows the layer something, so it costs nothing while no pass is on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mixbit/model/model.hpp"

namespace mixbit {

struct layer_tokens {
  std::string layer;
  std::uint64_t tokens = 0;

  friend bool operator==(layer_tokens const&, layer_tokens const&) = default;
};

/// Of each layer with input channels, in the order of the walk; empty where the calibration ran no loop.
struct token_counts {
  std::vector<layer_tokens> layers;

  /// The layers that saw fewer than `least`.
  std::vector<layer_tokens> below(std::uint64_t least) const {
    std::vector<layer_tokens> few;
    for (auto const& l : layers)
      if (l.tokens < least) few.push_back(l);
    return few;
  }
};

namespace detail {

template <backend B>
token_counts tokens_of(std::vector<std::shared_ptr<site<B>>> const& sites) {
  token_counts all;
  for (auto const& s : sites)
    if (!s->recipes.empty() && s->quantizers().tokens) all.layers.push_back({s->name, *s->quantizers().tokens});
  return all;
}

}  // namespace detail

/// What the last calibration of the active recipes showed each layer.
template <backend B>
token_counts calibration_tokens(model<B>& m) {
  std::vector<std::shared_ptr<site<B>>> sites;
  for (auto const& module : m.modules()) sites.push_back(module.slots->shared_site());
  return detail::tokens_of(sites);
}

}  // namespace mixbit
