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
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/calib/scale_gradient.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/model/control.hpp"

namespace mixbit {

enum class learned_scales : std::uint8_t {
  one,        ///< LSQ: a scale finds the codes and is what they stand for
  both,       ///< Dual-LSQ: two scales, each learned
  after_only  ///< Dual-LSQ with the codes' scale as it was: ModelOpt's default
};

/// The amaxes of one weight quantizer, and the gradient of the loss by them. Where one scale is both they are `after`.
struct scale_parameter {
  std::string name;                     ///< of the quantizer
  std::vector<float> before, after;     ///< amaxes, one a group: of the scales that find the codes, and that they mean
  std::vector<double> before_gradient, after_gradient;  ///< summed over the backwards since the last update
  double factor = 1;                    ///< what step() multiplies gradients by
};

namespace detail {

template <backend B>
class learned_scale final : public scale_learner<B> {
 public:
  learned_scale(B& device, tensor_quantizer<B>& q, geometry const& weight, learned_scales what)
      : what_{what}, how_{q.numerics().how}, groups_{q.grouping(weight)}, range_{code_range_of(how_)} {
    parameter.name = q.name();
    parameter.after = q.amax(device);
    auto const count = parameter.after.size();
    if (is_dual()) parameter.before = parameter.after;
    parameter.after_gradient.resize(count);
    if (what == learned_scales::both) parameter.before_gradient.resize(count);
    parameter.factor = lsq_step_factor(static_cast<double>(weight.size()) / static_cast<double>(count), range_.bound);
    hold(device);
  }

  bool is_dual() const { return what_ != learned_scales::one; }
  code_range const& range() const { return range_; }
  std::vector<float> const& before() const { return is_dual() ? parameter.before : parameter.after; }
  /// Takes up what the parameter says.
  void hold(B& device) { after_ = buffer_of(device, parameter.after); }

  /// The codes are those of `before`, and stand for what a file's would with the scales of `after`.
  bool quantize(B& device, arena& scratch, fake_quantize_args const& a) override {
    if (!is_dual()) return false;
    storage_size const size = storage_size_of(how_, a.x, a.groups);
    auto const take = [&](std::int64_t bytes) { return scratch.allocate(static_cast<std::size_t>(bytes)); };
    auto* const codes = static_cast<std::uint8_t*>(take(size.payload));
    auto* const others = static_cast<std::uint8_t*>(take(size.payload));
    void* const scales = take(size.scales);
    auto* const whole = static_cast<float*>(take(sizeof(float)));
    device.encode({a.x, a.groups, a.amax, how_, codes, scales, a.flags, a.tensor_amax, whole});
    device.encode({a.x, a.groups, after_.data(), how_, others, scales, nullptr, a.tensor_amax, whole});
    device.decode({codes, scales, a.groups, how_, a.y, is_two_level(how_.scaling) ? whole : nullptr});
    return true;
  }

  void backward(B& device, const_tensor_ref x, const_tensor_ref y, const_tensor_ref grad_y) override {
    auto const given = fetch_floats(device, x), cast = fetch_floats(device, y), grad = fetch_floats(device, grad_y);
    std::lock_guard const adding{mutex_};
    std::vector<double> unused;
    auto& before_gradient = what_ == learned_scales::one ? parameter.after_gradient : parameter.before_gradient;
    if (what_ == learned_scales::after_only) unused.resize(parameter.after.size());
    add_scale_gradient(x, groups_, range_, {before(), parameter.after}, {given, cast, grad},
                       unused.empty() ? before_gradient : unused, parameter.after_gradient);
  }

  scale_parameter parameter;

 private:
  learned_scales what_;
  format how_;
  partition groups_;
  code_range range_;
  buffer<B, float> after_;
  std::mutex mutex_;
};

/// Throws `config_conflict` or `state_*`, naming the quantizer, where the scales of a weight cannot be learned.
template <backend B>
void require_learnable(matched_quantizer<B> const& q) {
  auto const refuse = [&](error_id id, auto const&... why) {
    fail(id, q.quantizer->path(), ": its scales cannot be learned: ", why...);
  };
  if (q.quantizer->role() != quantizer_role::weight) refuse(error_id::config_conflict, "only weights' are");
  q.refuse_folded();
  auto const& s = q.where();
  if (s.rewritten(s.active)) refuse(error_id::state_folded, "calibration has rewritten this weight (as GPTQ does)");
  if (q.quantizer->members().size() != 1) refuse(error_id::config_conflict, "it is a sequence of quantizers");
  auto const& member = q.quantizer->members().front();
  auto const& n = member.numerics();
  if (n.amax_from != amax_source::calibration || n.groups_from_data)
    refuse(error_id::config_conflict, "they are not calibrated but follow from each call's data or from a constant");
  if (n.bias || n.rotate) refuse(error_id::config_conflict, "it has a bias or a rotation");
  if (n.how.scale_block > 0) refuse(error_id::config_conflict, "they are quantized themselves (double quantization)");
  if (!member.has_amax()) refuse(error_id::state_not_calibrated, "it is not calibrated");
  if (member.learns()) refuse(error_id::state_nested, "another scale_training is at it");
}

}  // namespace detail

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
      : model_{m} {
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
  std::vector<learned> learned_;
  bool finished_ = false;
};

}  // namespace mixbit
