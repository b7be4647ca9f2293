// Learned scales (LSQ and Dual-LSQ) for hosts that train under fake quantization.
//
//   quantize(m, config, loop);                       // config.algorithm = "lsq": scales start from those of mse
//   scale_training<B> scales{m};                     // backwards now find the gradient of each weight's scales
//   for (auto const& batch : batches) {
//     forward_and_backward(net, batch);              // by apply, lend and weight_backward, as without it
//     optimizer.step();
//     scales.step(rate);                             // or move scales.parameters() by an optimizer, and update()
//   }
//   scales.finish();                                 // else the scales are those from before, when it ends
//
// Source: LSQ learns one scale a group (Esser et al. 2020, arXiv:1902.08153); Dual-LSQ, ModelOpt's, one that finds the
// codes and another that they stand for: y = round(w / s_before) · s_after. As there, weights alone are learned, amax
// is the parameter, and a tensor's own scale (NVFP4) stays where it was.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mixbit/model/learned_scale.hpp"

namespace mixbit {

/// What a training has learned so far and what its quantizers had before it: enough to go on with it elsewhere, once
/// the quantizers are restored (io/state.hpp). Between two backwards of a step gradients are part of it.
struct scale_training_state {
  struct scale {
    scale_parameter parameter;
    std::vector<float> amax;       ///< from before the training
    bool held_tensor_amax = false;  ///< was the tensor's own amax fixed already?
  };
  learned_scales what = learned_scales::one;
  std::vector<scale> scales = {};
};

/// Learns the scales of the matching weight quantizers, from when it is made to when it ends. Backwards that go through
/// weight_backward (or a tape's link) add to the gradients; they may come from several threads, whose order then shows
/// in the last bits. Until it ends, exports, postprocess_amax and the like refuse these quantizers (`state_nested`).
template <backend B>
class scale_training {
 public:
  /// Those that are off are left out. Throws `config_no_match` for a pattern that matches none that is on, and what is
  /// wrong with one of them, naming it; nothing is changed then.
  explicit scale_training(model<B>& m, learned_scales what = learned_scales::one,
                          pattern const& which = "*weight_quantizer")
      : model_{m}, what_{what} {
    for (auto const& q : detail::match_quantizers(m, which)) {
      if (!q.quantizer->enabled()) continue;
      detail::require_learnable(q);
      if (what != learned_scales::one && q.quantizer->has_pre_quant_scale())
        fail(error_id::config_conflict, q.quantizer->path(), ": its two scales cannot be learned: it has a ",
             "pre_quant_scale, which what they make of the weight would have in it");
      auto& member = q.quantizer->members().front();
      auto const weight = canonical_weight(q.owner);
      auto const& s = q.owner.slots->shared_site();
      std::optional<float> whole;
      if (is_two_level(member.numerics().how.scaling)) whole = member.tensor_amax(m.device(), weight);
      if (what != learned_scales::one) check_encodable(member.numerics().how, q.quantizer->path());
      learned_.push_back({s, s->generation, s->active, q.quantizer, member.amax(m.device()), whole,
                          member.holds_tensor_amax(),
                          std::make_shared<detail::learned_scale<B>>(m.device(), member, weight, what)});
    }
    if (learned_.empty())
      fail(error_id::config_no_match, "pattern '", which.label(), "' matches no weight quantizer that is on");
    for (auto const& l : learned_)
      if (l.whole) l.member().hold_tensor_amax(m.device(), *l.whole);
    for (auto const& l : learned_) l.member().learn(l.scale);
  }
  /// Goes on with a training whose `state()` was saved with its model, in that model or one that was restored. Throws
  /// what the other constructor throws, `config_no_match` for a quantizer that the model does not have on,
  /// `tensor_shape` for one of another number of scales, and `format_amax`.
  scale_training(model<B>& m, scale_training_state const& from) : scale_training{m, from.what, names_of(from)} {
    if (learned_.size() != from.scales.size())
      fail(error_id::config_no_match, "a training of ", from.scales.size(), " scale(s) was saved, and the model has ",
           learned_.size(), " of these quantizers on");
    std::vector<scale_training_state::scale const*> saved;
    for (auto const& l : learned_) saved.push_back(find_fitting(l, from));
    for (std::size_t i = 0; i < learned_.size(); ++i) {
      auto& l = learned_[i];
      l.scale->parameter = saved[i]->parameter;
      l.amax = saved[i]->amax;
      l.held_whole = saved[i]->held_tensor_amax;
      l.member().set_amax(m.device(), partition{l.member().groups()}, l.scale->before());
      l.scale->hold(m.device());
      l.where->cache.valid = false;
    }
  }
  scale_training(scale_training const&) = delete;
  scale_training& operator=(scale_training const&) = delete;
  ~scale_training() {
    if (finished_) return;
    for (auto const& l : learned_)
      if (l.is_held()) l.take_back(model_.device());
  }

  /// To be moved by an optimizer of the host's, which calls update() behind it.
  std::vector<scale_parameter*> parameters() {
    std::vector<scale_parameter*> all;
    for (auto const& l : learned_) all.push_back(&l.scale->parameter);
    return all;
  }

  scale_training_state state() const {
    scale_training_state now{what_};
    for (auto const& l : learned_) now.scales.push_back({l.scale->parameter, l.amax, l.held_whole});
    return now;
  }

  /// A step down the gradient, as LSQ scales it: step sizes move by rate · gradient / √(elements · bound). Throws what
  /// update() throws, with amaxes as before and gradients at 0.
  void step(double rate) {
    std::vector<std::pair<std::vector<float>, std::vector<float>>> before;
    for (auto const& l : learned_) before.emplace_back(l.scale->parameter.after, l.scale->parameter.before);
    for (auto const& l : learned_) {
      auto& p = l.scale->parameter;
      auto const move = [&](std::vector<float>& amax, std::vector<double> const& gradient) {
        for (std::size_t g = 0; g < gradient.size(); ++g)
          if (amax[g] > 0) amax[g] = static_cast<float>(amax[g] - rate * p.factor * gradient[g]);
      };
      move(p.after, p.after_gradient);
      move(p.before, p.before_gradient);
    }
    try {
      update();
    } catch (...) {
      for (std::size_t i = 0; i < learned_.size(); ++i) {
        auto& p = learned_[i].scale->parameter;
        std::tie(p.after, p.before) = std::move(before[i]);
        start_gradients(p);
      }
      throw;
    }
  }

  /// The parameters' amaxes are used from now on, and their gradients start from 0. An amax of 0 stays; others are kept
  /// from becoming 0 or negative, at a scale of 1e-8 (ModelOpt's). Throws `format_amax` for one that is not finite,
  /// `state_missing` where another phase has replaced a quantizer or made another recipe active, `state_folded` where
  /// one has folded its weight; what casts is then as before.
  void update() {
    for (auto const& l : learned_) {
      if (!l.is_there())
        fail(error_id::state_missing, l.scale->parameter.name, ": this quantizer was replaced, or another recipe made ",
             "active, while its scales were learned");
      if (l.where->folded)
        fail(error_id::state_folded, l.scale->parameter.name, ": fold_weight has fixed this weight while its scales ",
             "were learned");
      check(l, l.scale->parameter.after);
      check(l, l.scale->parameter.before);
    }
    for (auto const& l : learned_) {
      auto& p = l.scale->parameter;
      l.member().set_amax(model_.device(), partition{l.member().groups()}, l.scale->before());
      l.scale->hold(model_.device());
      start_gradients(p);
      l.where->cache.valid = false;
    }
  }

  /// Keeps what was learned, and ends the training. Of two scales the second stays, beside what the first makes of the
  /// weight, which from then on stands for the host's, as after GPTQ: it can be exported and folded, not trained.
  void finish() {
    update();
    std::vector<std::pair<site<B>*, held_tensor<B>>> weights;
    for (auto const& module : model_.modules())
      for (auto const& l : learned_)
        if (l.where == module.slots->shared_site() && l.scale->is_dual())
          weights.emplace_back(l.where.get(), cast_weight(l, canonical_weight(module)));
    for (auto const& l : learned_) {
      l.member().learn(nullptr);
      l.member().set_amax(model_.device(), partition{l.member().groups()}, l.scale->parameter.after);
    }
    for (auto& [where, weight] : weights) where->quantizers().weight.emplace(std::move(weight));
    for (auto const& l : learned_) l.where->refresh();
    finished_ = true;
  }

 private:
  struct learned {
    std::shared_ptr<site<B>> where;
    std::uint64_t generation;
    int recipe;  ///< that the quantizer is of
    sequential_quantizer<B>* quantizer;
    std::vector<float> amax;     ///< from before
    std::optional<float> whole;  ///< the tensor's own, for two levels
    bool held_whole;             ///< was it fixed already?
    std::shared_ptr<detail::learned_scale<B>> scale;

    tensor_quantizer<B>& member() const { return quantizer->members().front(); }
    /// Is the quantizer the one it was?
    bool is_held() const {
      return generation == where->generation && !quantizer->members().empty() && member().learns() == scale.get();
    }
    bool is_there() const { return is_held() && where->active == recipe; }
    void take_back(B& device) const {
      auto& q = member();
      partition const groups = q.groups();
      q.learn(nullptr);
      q.forget();
      q.set_amax(device, groups, amax);
      if (held_whole) q.hold_tensor_amax(device, *whole);
      where->cache.valid = false;
    }
  };

  static pattern names_of(scale_training_state const& from) {
    std::set<std::string, std::less<>> names;
    for (auto const& s : from.scales) names.insert(s.parameter.name);
    return {[names](std::string_view name) { return names.contains(name); }, "those of a saved training"};
  }

  static scale_training_state::scale const* find_fitting(learned const& l, scale_training_state const& from) {
    auto const& p = l.scale->parameter;
    auto const at = std::ranges::find_if(from.scales, [&](auto const& s) { return s.parameter.name == p.name; });
    auto const size = p.after.size();
    auto const& saved = at->parameter;
    if (saved.after.size() != size || saved.before.size() != p.before.size() || at->amax.size() != size ||
        saved.after_gradient.size() != size || saved.before_gradient.size() != p.before_gradient.size())
      fail(error_id::tensor_shape, p.name, ": a training of ", saved.after.size(), " scales was saved, and this ",
           "quantizer has ", size);
    for (auto const* const amax : {&saved.after, &saved.before, &at->amax}) l.member().require_amax(*amax);
    return &*at;
  }

  static void check(learned const& l, std::vector<float>& amax) {
    float const least = 1e-8f * l.scale->range().bound;
    for (float& a : amax)
      if (a != 0 && a < least && fp::is_finite(a)) a = least;
    l.member().require_amax(amax);
  }

  static void start_gradients(scale_parameter& p) {
    std::ranges::fill(p.after_gradient, 0.0);
    std::ranges::fill(p.before_gradient, 0.0);
  }

  held_tensor<B> cast_weight(learned const& l, const_tensor_ref weight) {
    held_tensor<B> held{model_.device(), weight};
    workspace_lock<B> const locked{model_.scratch()};
    arena_scope const scope{model_.scratch().scratch};
    l.member().quantize(model_.device(), model_.scratch().scratch, weight, held.view());
    return held;
  }

  model<B>& model_;
  learned_scales what_;
  std::vector<learned> learned_;
  bool finished_ = false;
};

}  // namespace mixbit
