// What is done to quantizers after a calibration: amaxes changed by wildcard, and changes that are taken back.
//
//   postprocess_amax(m, "*input_quantizer", scaled_amax(1.1f));
//   {
//     quantizer_guard keep{m, "*"};
//     disable_quantizer(m, "*lm_head*");
//     ...                                   // measured so
//   }                                       // and all is as before
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "mixbit/model/control.hpp"

namespace mixbit {

/// The new value of an amax.
using amax_function = std::function<float(float)>;

inline amax_function scaled_amax(float factor) {
  return [factor](float amax) { return amax * factor; };
}
/// Throws `config_value` for limits out of order.
inline amax_function clipped_amax(float low, float high) {
  if (!(low <= high))
    fail(error_id::config_value, "amax limits of ", low, " and ", high, ": the first is above the second");
  return [low, high](float amax) { return std::clamp(amax, low, high); };
}
inline amax_function set_amax_to(float value) {
  return [value](float) { return value; };
}

/// Puts f(amax) in the place of each amax of the matching quantizers that are calibrated. Returns how many quantizers
/// that are. Throws `config_no_match` for a pattern that matches none, `state_not_calibrated` where none of them has an
/// amax, `state_folded` for a folded weight's, `state_nested` for one whose scale is being learned, and
/// `format_amax` for a value that is negative or not finite, or whose scale overflows the type that holds it; nothing
/// is changed then.
template <backend B>
int postprocess_amax(model<B>& m, pattern const& which, amax_function const& f) {
  struct change {
    tensor_quantizer<B>* member;
    std::vector<float> amax;
  };
  auto const all = detail::match_quantizers(m, which);
  std::vector<change> changes;
  int count = 0;
  for (auto const& q : all) {
    auto const before = changes.size();
    for (auto& member : q.quantizer->members()) {
      if (!member.has_amax()) continue;
      q.refuse_folded();
      q.refuse_packed();
      q.quantizer->refuse_learning("postprocess_amax");
      auto values = member.amax(m.device());
      for (float& v : values) v = f(v);
      member.require_amax(values);
      changes.push_back({&member, std::move(values)});
    }
    count += changes.size() > before;
  }
  if (count == 0)
    fail(error_id::state_not_calibrated, "pattern '", which.label(), "': none of ", all.size(),
         " quantizer(s) has a calibrated amax");
  for (auto& c : changes) c.member->set_amax(m.device(), partition{c.member->groups()}, c.amax);
  detail::refresh_sites(all);
  return count;
}

/// Keeps the matching quantizers as they are - on or off, attributes, amaxes, pre_quant_scale, and for a weight's what
/// an algorithm has put in the weight's place - and puts them back when it ends. Meanwhile copies stand in their place,
/// to be changed at will. A site that was quantized anew is left so; a weight that was folded stays folded, its
/// quantizer off. Not around weights whose scales are being learned: the training, which may end first, would lose what
/// it learns, so making one there throws `state_nested`. A guard of other quantizers, or from before it, is fine.
template <backend B>
class quantizer_guard {
 public:
  quantizer_guard(model<B>& m, pattern const& which) : numerics_{m.options().numerics} {
    auto const all = detail::match_quantizers(m, which);
    for (auto const& q : all) q.quantizer->refuse_learning("a quantizer_guard");
    for (auto const& q : all) {
      auto const& s = q.owner.slots->shared_site();
      kept_.push_back({s, s->generation, q.quantizer->copy(m.device(), numerics_), q.quantizer, {}, {}, s->active});
      if (q.quantizer->role() == quantizer_role::weight) kept_.back().keep_weight(m.scratch());
    }
    for (auto& k : kept_) k.exchange();  // nothing throws from here on
    detail::refresh_sites(all);
  }
  quantizer_guard(quantizer_guard const&) = delete;
  quantizer_guard& operator=(quantizer_guard const&) = delete;
  ~quantizer_guard() {
    for (auto& k : kept_) {
      if (k.generation == k.where->generation) k.put_back(numerics_);
      k.where->cache.valid = false;
      k.where->refresh();
    }
  }

 private:
  struct kept {
    std::shared_ptr<site<B>> where;
    std::uint64_t generation;
    sequential_quantizer<B> quantizer;
    sequential_quantizer<B>* place;
    std::optional<held_tensor<B>> weight;  ///< what stands for it, of a weight quantizer
    std::vector<float> absorbed_scale;
    int recipe;

    recipe_quantizers<B>& owner() const { return where->recipes[static_cast<std::size_t>(recipe)]; }
    bool of_weight() const { return place->role() == quantizer_role::weight; }

    /// Copies them, as `quantizer` is a copy until `exchange`.
    void keep_weight(workspace<B>& ws) {
      absorbed_scale = owner().absorbed_scale;
      if (!owner().weight) return;
      workspace_lock<B> const held{ws};
      auto const& from = std::as_const(*owner().weight);
      copy_elements(ws.device, ws.scratch, from.view(), weight.emplace(ws.device, from.view()).view());
    }
    void exchange() {
      std::swap(quantizer, *place);
      if (!of_weight()) return;
      std::swap(weight, owner().weight);
      std::swap(absorbed_scale, owner().absorbed_scale);
    }
    void put_back(numerics_options const& numerics) {
      exchange();
      if (of_weight() && where->folded) place->enable(false, numerics);
    }
  };

  numerics_options numerics_;
  std::vector<kept> kept_;
};

}  // namespace mixbit
