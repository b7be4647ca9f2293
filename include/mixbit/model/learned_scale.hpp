// One weight quantizer whose scales are learned: its parameters, the cast that they make and their gradient. Which
// quantizers that can be, too. For model/scale_training.hpp, which says what is learned and from where the rules are.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
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
  s.refuse_packed("so that its scales cannot be learned");
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

}  // namespace mixbit
