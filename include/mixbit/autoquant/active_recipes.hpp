// Which recipes sites run, to be put back: trying one must not be what a model is left with.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "mixbit/quantizer/site.hpp"

namespace mixbit {

/// On destruction the sites run again what they ran, unless it was committed. Recipes themselves are not kept: a site
/// that was given others meanwhile stays as it is.
template <backend B>
class active_recipes {
 public:
  explicit active_recipes(std::vector<std::shared_ptr<site<B>>> sites) : sites_{std::move(sites)} {
    for (auto const& s : sites_) before_.push_back({s->active, s->generation});
  }
  active_recipes(active_recipes const&) = delete;
  active_recipes& operator=(active_recipes const&) = delete;
  ~active_recipes() {
    for (std::size_t i = 0; i < sites_.size(); ++i)
      if (!committed_ && sites_[i]->generation == before_[i].generation) activate(*sites_[i], before_[i].active);
  }

  /// All of them run the recipe that `of` gives for a site.
  template <class F>
  void activate_all(F&& of) {
    for (auto const& s : sites_) activate(*s, of(*s));
  }
  void commit() { committed_ = true; }

 private:
  struct state {
    int active;
    decltype(site<B>::generation) generation;
  };
  static void activate(site<B>& s, int recipe) {
    s.active = recipe;
    s.refresh();
  }

  std::vector<std::shared_ptr<site<B>>> sites_;
  std::vector<state> before_;
  bool committed_ = false;
};

/// The index of "do not quantize" among a searched site's recipes.
template <backend B>
int unquantized_index(site<B> const& s) {
  return static_cast<int>(s.recipes.size()) - 1;
}

}  // namespace mixbit
