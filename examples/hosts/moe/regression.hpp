// The mixture below a head, fitted to targets, as a search by gradient runs it: its experts are scored where their
// answers meet, at the mixture's output, as one expert's own output says nothing of the share that a token takes of it.
#pragma once

#include "mixbit/autoquant/search.hpp"
#include "mixture.hpp"

namespace moe {

struct regression {
  mixture mlp;
  layer head;

  explicit regression(random_source& random) : mlp{random}, head{random(8, width, 0.2f)} {}

  matrix forward(matrix const& tokens) const { return head.forward(mlp.forward(tokens)); }

  /// Half the mean squared distance from the targets, of what the mixture has made of the tokens.
  double loss(matrix const& mixed, matrix const& targets) const {
    auto const answer = mixed.cast<double>() * head.weight.cast<double>().transpose();
    return (answer - targets.cast<double>()).squaredNorm() / (2.0 * static_cast<double>(mixed.rows()));
  }

  /// A forward and a backward. The head is scored at its own output, and each group of experts at the mixture's: that
  /// is run again under each of the group's formats.
  void score_step(mixbit::search<backend> const& search, matrix const& tokens, matrix const& targets) const {
    matrix const mixed = mlp.forward(tokens);
    matrix const at_head = (head.forward(mixed) - targets) / static_cast<float>(mixed.rows());
    score(head.slots, mixed, head.weight, layer::product(), at_head);
    matrix const at_mixture = at_head * head.weight;
    auto const again = [&](matrix const& x) -> matrix { return mlp.forward(x); };
    for (auto const& region : search.regions(mixture::name)) score(region, tokens, again, at_mixture);
  }

  template <class Visit>
  void walk(Visit&& visit) {
    mlp.walk(visit);
    visit(mixbit::linear("head", head.slots, head.weight));
  }
};

/// Formats for each expert apart, which is a group of its own; routing stays as it is.
inline mixbit::search_options by_expert(std::vector<mixbit::quantize_config> formats) {
  mixbit::search_options o{.formats = std::move(formats), .target = 6.0};
  o.disabled_layers = {"*.router"};
  o.grouping = {"(experts.#).{up_proj,down_proj}"};
  o.score_rules = {"(mlp).experts.#.{up_proj,down_proj}"};
  return o;
}

}  // namespace moe
