// What becomes of a static quantizer that calibration showed no data, such as that of an expert without tokens.
//
// By default that is an error that lists them. A user who expects it says what they become instead:
//
//   options.unseen = mixbit::unseen_quantizers::take_from_data();   // dynamic: each call's own amax
//   options.unseen = mixbit::unseen_quantizers::take(6.0f);         // this amax
//   options.unseen = mixbit::unseen_quantizers::take_from(mixbit::expert_siblings());  // the other experts'
//
// It is for quantizers that a loop passed by while it reached others. A loop that reached none is a mistake and stays
// an error, and so does a weight without elements. `calibrate` starts from what the config said, so a quantizer that
// data reach later is calibrated then.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mixbit/core/fp.hpp"
#include "mixbit/model/siblings.hpp"

namespace mixbit {

class unseen_quantizers {
 public:
  enum class become : std::uint8_t { refused, dynamic, constant, siblings };

  unseen_quantizers() = default;
  static unseen_quantizers refuse() { return {}; }
  static unseen_quantizers take_from_data() { return {become::dynamic, 0}; }
  /// The largest amax of the siblings that saw data. Who has none, or whose siblings were calibrated for other
  /// data (under pre_quant_scales of their own), stays refused. Throws `config_value` for an empty
  /// rule.
  static unseen_quantizers take_from(sibling_rule rule) {
    if (!rule) fail(error_id::config_value, "unseen: the rule that says which layers are siblings is empty");
    return {become::siblings, 0, std::move(rule)};
  }
  /// Throws `format_amax` for an amax that is not positive and finite.
  static unseen_quantizers take(float amax) {
    if (!(amax > 0) || !fp::is_finite(amax))
      fail(error_id::format_amax, "unseen: ", amax, " is no amax; it must be positive and finite");
    return {become::constant, amax};
  }

  become what() const { return what_; }
  float amax() const { return amax_; }
  sibling_rule const& siblings() const { return siblings_; }

  /// What the attributes become, where it is they that change. A static bias saw no data either, so it becomes that of
  /// each call.
  void change(quantizer_attribute_config& a) const {
    if (what_ == become::dynamic) a.type = quantizer_type::dynamic_type;
    else a.constant_amax = amax_;
    if (a.bias) a.bias->type = quantizer_type::dynamic_type;
  }
  /// "it takes its amax from each call's data"
  std::string sentence() const {
    if (what_ == become::dynamic) return "it takes its amax from each call's data";
    return detail::concat("its amax is ", amax_);
  }

 private:
  unseen_quantizers(become what, float amax, sibling_rule siblings = {})
      : what_{what}, amax_{amax}, siblings_{std::move(siblings)} {}

  become what_ = become::refused;
  float amax_ = 0;
  sibling_rule siblings_;
};

namespace detail {

/// Changes the quantizers that saw no data, where others did. Throws `format_value` naming one whose
/// format cannot be what `unseen` says.
template <backend B>
settled_quantizers settle_unseen(std::vector<std::shared_ptr<site<B>>> const& sites, unseen_quantizers const& unseen,
                                 numerics_options const& numerics) {
  if (unseen.what() == unseen_quantizers::become::siblings) return take_from_siblings(sites, unseen.siblings());
  std::vector<sequential_quantizer<B>*> missed;
  bool reached = false;
  for (auto const& s : sites)
    for (auto& recipe : s->recipes)
      for (auto& q : recipe.quantizers) {
        if (!q.enabled() || q.role() == quantizer_role::weight || !q.needs_calibration()) continue;
        reached = reached || q.ready();
        if (!q.ready()) missed.push_back(&q);
      }
  settled_quantizers settled;
  if (!reached || unseen.what() == unseen_quantizers::become::refused) return settled;
  for (auto* const q : missed) {
    q->change_unready([&](quantizer_attribute_config& a) { unseen.change(a); }, numerics);
    note_once(settled.notes, q->path() + ": saw no data while others did; " + unseen.sentence());
  }
  return settled;
}

}  // namespace detail

}  // namespace mixbit
