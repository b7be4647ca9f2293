// All or nothing: remembers what a phase may change at every site and puts it back unless the phase commits.
#pragma once

#include <memory>
#include <vector>

#include "mixbit/quantizer/site.hpp"

namespace mixbit {

/// Throws `state_nested` naming the site while a calibration or scoring pass is on.
template <backend B>
void refuse_inside_pass(site<B> const& s, char const* what) {
  if (s.hook != nullptr)
    fail(error_id::state_nested, s.name, ": ", what, " cannot be called from inside a calibration or scoring pass");
}

/// Takes the recipes out of the sites, so that a phase builds new ones; puts the old back on destruction. Throws
/// `state_nested` inside another phase's pass (from a forward_loop), which holds on to the recipes it found.
template <backend B>
class recipe_transaction {
 public:
  explicit recipe_transaction(std::vector<std::shared_ptr<site<B>>> sites) : sites_{std::move(sites)} {
    for (auto const& s : sites_) refuse_inside_pass(*s, "quantize, calibrate and search");
    before_.reserve(sites_.size());  // no recipe is lost to an exception below
    for (auto& s : sites_) {
      before_.push_back({std::move(s->recipes), s->active, s->folded});
      s->recipes.clear();
      s->active = 0;
      ++s->generation;
      s->cache.valid = false;
    }
  }
  recipe_transaction(recipe_transaction const&) = delete;
  recipe_transaction& operator=(recipe_transaction const&) = delete;
  ~recipe_transaction() {
    if (committed_) return;
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      sites_[i]->recipes = std::move(before_[i].recipes);
      --sites_[i]->generation;
      sites_[i]->active = before_[i].active;
      sites_[i]->folded = before_[i].folded;
      sites_[i]->cache.valid = false;
      sites_[i]->refresh();
    }
  }

  /// The recipes of site `i` as they were.
  std::vector<recipe_quantizers<B>> const& before(std::size_t i) const { return before_[i].recipes; }

  void commit() {
    committed_ = true;
    for (auto& s : sites_) {
      s->cache.valid = false;  // of a weight that calibration may have rewritten since
      s->refresh();
    }
  }

 private:
  struct state {
    std::vector<recipe_quantizers<B>> recipes;
    int active;
    bool folded;
  };
  std::vector<std::shared_ptr<site<B>>> sites_;
  std::vector<state> before_;
  bool committed_ = false;
};

}  // namespace mixbit
