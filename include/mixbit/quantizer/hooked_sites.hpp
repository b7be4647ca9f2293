// The sites that a pass sees: its hook is set on them for as long as this lives, and taken off by an exception too.
//
// A pass keeps one as its last member, so that it goes first. A pass may put another on sites that it has hooked
// already (calib/input_statistics.hpp): each puts back what it found.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "mixbit/quantizer/site.hpp"

namespace mixbit {

template <backend B>
class hooked_sites {
 public:
  hooked_sites(std::vector<std::shared_ptr<site<B>>> sites, apply_hook<B>& hook)
      : sites_{std::move(sites)}, hook_{&hook} {
    before_.reserve(sites_.size());
    for (auto& s : sites_) {
      place_[s.get()] = before_.size();
      before_.push_back(s->hook);
    }
    for (auto& s : sites_) {  // nothing throws from here on
      s->hook = hook_;
      s->refresh();
    }
  }
  hooked_sites(hooked_sites const&) = delete;
  hooked_sites& operator=(hooked_sites const&) = delete;
  ~hooked_sites() {
    for (auto& s : sites_) release(*s);
  }

  std::vector<std::shared_ptr<site<B>>> const& all() const { return sites_; }
  /// Where a site stands in `all`; it is one of them.
  std::size_t place(site<B> const& s) const { return place_.at(&s); }

  /// Takes the hook off one of them before its time. Another's, set since, stays.
  void release(site<B>& s) {
    if (s.hook == hook_) s.hook = before_[place(s)];
    s.refresh();
  }

 private:
  std::vector<std::shared_ptr<site<B>>> sites_;
  apply_hook<B>* hook_;
  std::vector<apply_hook<B>*> before_;  ///< what each had
  std::unordered_map<site<B> const*, std::size_t> place_;
};

}  // namespace mixbit
