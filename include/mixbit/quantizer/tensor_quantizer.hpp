// One quantizer of one tensor: its attributes, its amax and what it does to data.
//
// Life: made from attributes (already validated); a static quantizer observes data (running max of |x| a group, or what
// its calibrator makes of them) until `finish`, or is given an amax; then it quantizes. Dynamic quantizers take amax
// from the data of each call. NVFP4 has both: blocks that look at the data, and a scale of the tensor that is
// calibrated. Source of the rules: docs/numerics.md; ModelOpt's TensorQuantizer is the model for names and life cycle.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "mixbit/core/span_of.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/formats/double_quantization.hpp"
#include "mixbit/quantizer/affine_bias.hpp"
#include "mixbit/quantizer/calibrator.hpp"
#include "mixbit/quantizer/numerics.hpp"
#include "mixbit/quantizer/scale_learner.hpp"
#include "mixbit/quantizer/workspace.hpp"

namespace mixbit {

template <backend B>
class tensor_quantizer {
 public:
  /// `name` is the full one ("model.layers.0.mlp.up_proj.weight_quantizer"), used in every message.
  tensor_quantizer(std::string name, quantizer_attribute_config attributes, numerics_options const& numerics)
      : name_{std::move(name)},
        attributes_{std::move(attributes)},
        numerics_{interpret(attributes_, numerics, name_)} {
    if (numerics_.bias) bias_.emplace(*numerics_.bias, name_);
  }

  std::string const& name() const { return name_; }
  quantizer_attribute_config const& attributes() const { return attributes_; }
  quantizer_numerics const& numerics() const { return numerics_; }

  /// True where calibration has to show it data before it can quantize.
  bool needs_calibration() const { return calibrates_amax() || (bias_ && bias_->is_static()); }
  bool has_amax() const { return !amax_.empty(); }
  /// True once it may quantize.
  bool ready() const {
    return (!calibrates_amax() || has_amax() || released_) && finished() &&
           (!bias_ || !bias_->is_static() || bias_->has_value());
  }

  /// Does a calibrator find its amax, rather than the running max?
  bool needs_calibrator() const { return calibrates_amax() && !numerics_.calibrator.is_max(); }

  /// Shows it one batch, rotated and less the bias so far: to the running max, or to a calibrator, which then also ends
  /// the calibration. A tensor without elements (an expert without tokens) shows nothing. Throws `tensor_shape` where a
  /// batch has another number of groups.
  void observe(B& device, arena& scratch, const_tensor_ref x, calibrator<B>* by = nullptr) {
    if (x.size() == 0) return;
    arena_scope const borrowed{scratch};
    partition const groups = calibrated_grouping(x);
    if (calibrates_amax() && by == nullptr) hold(device, groups);
    else if (calibrates_amax()) hold_shown(device, groups);
    seen_type_ = x.type;
    const_tensor_ref seen = rotated(device, scratch, x);
    if (bias_ && bias_->is_static()) {
      hold_flags(device);
      // an amax counts the same elements once more behind the shift, so one of the two does
      bias_->observe(device, scratch, seen, calibrates_amax() ? nullptr : flags_.data());
      seen = shifted(device, scratch, seen);
    }
    if (calibrates_amax() && by == nullptr) device.amax({seen, groups, amax_.data(), flags_.data()});
    else if (calibrates_amax()) by->observe(device, scratch, seen, groups, flags_.data());
    file_amax_ = {};  // of the amax before
    tensor_amax_ = {};
  }

  /// Forgets its amax, its bias and what was left out of them, so that what it observes next is all it knows.
  void forget() {
    amax_ = {};
    file_amax_ = {};
    tensor_amax_ = {};
    count_anew();
    shown_ = false;
    released_ = false;
    if (bias_) bias_->forget();
  }

  /// Forgets what was left out alone: a second pass over the same data would count it again.
  void count_anew() { flags_ = {}; }

  /// Ends the calibration that `by` made of what `first`, this one or another with the same calibration, has shown it.
  /// The others come before the first. Throws what is wrong with the calibrator's amax, naming the quantizer.
  void finish(B& device, calibrator<B>& by, tensor_quantizer const& first) {
    if (this != &first) adopt(device, first);
    seen_type_ = first.seen_type_;
    set_amax(device, first.groups_, detail::named(name_, [&] { return by.result(device, numerics_); }));
  }

  /// Ends a calibration, whose running max then has what follows from it: the scales of double quantization, which go
  /// through the host. Due before it quantizes, after the last `observe`; `adopt` and `set_amax` include it. Throws
  /// `format_amax` for an amax whose scale overflows the type that holds it, naming quantizer and value.
  void finish(B& device) {
    if (!has_amax() || (!double_quantized() && !formats::scale_may_overflow(numerics_.how))) return;
    std::vector<float> const values = amax(device);
    require_amax(values);
    hold_file_amax(device, values);
  }

  /// Takes over what another quantizer with the same calibration has observed: its running max, what it left out, and
  /// its bias.
  void adopt(B& device, tensor_quantizer const& other) {
    if (bias_ && other.bias_) bias_->adopt(device, *other.bias_);
    if (!other.flags_.empty()) hold_flags(device);
    data_flags const seen = other.flags(device);
    if (!flags_.empty()) device.copy_from_host(flags_.data(), &seen, sizeof seen);
    released_ = other.released_;
    if (!other.has_amax()) return;
    std::vector<float> const values = other.amax(device);
    seen_type_ = other.seen_type_;
    require_amax(values);
    hold(device, other.groups_);
    if (!other.tensor_amax_.empty()) hold_tensor_amax(device, other.tensor_amax(device, {}));
    device.copy_from_host(amax_.data(), values.data(), values.size() * sizeof(float));
    hold_file_amax(device, values);
  }

  /// y = Q(x): rotated, less the bias, cast, plus the bias and, where the rotation goes back, rotated; each step in x's
  /// type. y may be x. Throws `state_not_calibrated`, or `format_unsigned` (x and y untouched on a CPU).
  void quantize(B& device, arena& scratch, const_tensor_ref x, tensor_ref y) {
    fake_quantize_args args{x, y, grouping(x), nullptr, numerics_.how};
    require_state_for(x);
    if (numerics_.how.element.is_unsigned) {  // may refuse what it sees: y is written last
      args.x = rotated(device, scratch, x);
    } else if (numerics_.rotate) {
      rotate(device, x, y);
      args.x = y;
    }
    give_amax(device, scratch, args);
    float const* const bias = bias_ ? bias_->of(device, scratch, args.x) : nullptr;
    partition const offsets = bias_ ? bias_->grouping(x) : partition{};
    if (bias) {
      tensor_ref const less = numerics_.how.element.is_unsigned ? borrow(scratch, x) : y;
      device.shift({args.x, less, offsets, bias, true});
      args.x = less;
    }
    if (numerics_.how.element.is_unsigned) require_positive(device, scratch, args);
    if (!learner_ || !learner_->quantize(device, scratch, args)) device.fake_quantize(args);
    if (bias) device.shift({y, y, offsets, bias, false});
    if (numerics_.rotate && numerics_.rotate->back) rotate(device, y, y);
  }

  /// Throws, before anything is written, what a tensor like x would make `quantize` throw, whatever its values.
  void require_state_for(geometry const& x) const {
    (void)grouping(x);
    if (numerics_.amax_from == amax_source::constant && !numerics_.groups_from_data)
      check_amax({&numerics_.constant_amax, 1}, numerics_.how, x.type, name_);
    if (calibrates_amax()) require_fit(calibrated_grouping(x));
    if (!finished())
      fail(error_id::state_not_calibrated, name_, ": its calibration was not ended; call finish after the last batch");
    if (bias_) bias_->require_fit(x);
    if (numerics_.rotate) (void)numerics_.rotate->block_of(x, name_);
  }

  /// What encodes x as `quantize` casts it under policy `stored`, but for where codes and scales go; lent from
  /// `scratch`. Not for a bias or a rotation that goes back, which codes do not hold. Throws what `quantize` throws.
  encode_args encoding(B& device, arena& scratch, const_tensor_ref x) {
    require_state_for(x);
    encode_args args{rotated(device, scratch, x), grouping(x), nullptr, numerics_.how};
    args.how.numerics = policy::stored;
    give_amax(device, scratch, args);
    if (args.how.element.is_unsigned)
      require_positive(device, scratch,
                       {args.x, {}, args.groups, args.amax, args.how, nullptr, args.tensor_amax, args.use});
    return args;
  }

  /// Gives up its amaxes: the scales of a compressed weight stand for them.
  void release_amax() {
    forget();
    released_ = true;
  }
  bool has_released_amax() const { return released_; }

  /// Does its backward zero gradients? MX never does: its scales cover what they see.
  bool clips() const { return !attributes_.pass_through_bwd && !is_mx(numerics_.how.scaling); }

  /// Does its backward look at what the forward has cast?
  bool looks_back() const { return clips() || learner_; }

  /// From now on its scale is learned by `by`; null: no longer.
  void learn(std::shared_ptr<scale_learner<B>> by) { learner_ = std::move(by); }
  scale_learner<B> const* learns() const { return learner_.get(); }

  /// The gradient of y to that of x: rotations are linear, and a clipped quantizer zeroes it where what the cast saw
  /// exceeds amax. A dynamic bias or amax passes no gradient.
  void mask_backward(B& device, arena& scratch, const_tensor_ref x, tensor_ref grad) {
    if (numerics_.rotate && numerics_.rotate->back) rotate(device, grad, grad);
    if (learner_) {
      arena_scope const borrowed{scratch};
      tensor_ref const y = borrow(scratch, x);
      quantize(device, scratch, x, y);
      learner_->backward(device, x, y, grad);
    }
    if (clips()) {
      arena_scope const borrowed{scratch};
      require_state_for(x);
      const_tensor_ref seen = rotated(device, scratch, x);
      float const* const amax = calibrated_amax(device, scratch, seen);
      if (bias_) seen = shifted(device, scratch, seen);
      device.backward_mask({seen, grad, calibrated_grouping(x), amax});
    }
    if (numerics_.rotate) rotate(device, grad, grad);
  }

  /// Its amax on the host, one a group in row-major order; waits for the device.
  std::vector<float> amax(B& device) const { return fetched(device, amax_); }
  /// Throws `format_amax`, naming quantizer and value, for one that is negative, not finite, or whose scale overflows
  /// the type that holds it.
  void require_amax(std::vector<float> const& values) const {
    check_amax(detail::span_of(values), numerics_.how, seen_type_, name_);
  }
  /// Sets it; throws `tensor_shape` for another number of values than groups, and what `require_amax` throws.
  void set_amax(B& device, partition const& groups, std::vector<float> const& values) {
    if (static_cast<std::int64_t>(values.size()) != groups.group_count())
      fail(error_id::tensor_shape, name_, ": ", values.size(), " amax values for ", groups.group_count(), " groups");
    require_amax(values);
    amax_ = buffer_of(device, values);
    groups_ = groups;
    hold_file_amax(device, values);
  }
  partition const& groups() const { return groups_; }
  /// The type of the tensors that it was calibrated on: some policies round its scales to that.
  dtype seen_type() const { return seen_type_; }
  void set_seen_type(dtype type) { seen_type_ = type; }
  float const* device_amax() const { return amax_.data(); }

  /// The amax that each group of x is cast with, on the host: double quantization casts with what its file holds.
  /// Throws `state_not_calibrated` and `tensor_shape`; not for amaxes of each call's data.
  std::vector<float> cast_amax(B& device, geometry const& x) const {
    auto const groups = static_cast<std::size_t>(calibrated_grouping(x).group_count());
    if (!calibrates_amax()) return std::vector<float>(groups, numerics_.constant_amax);
    require_state_for(x);
    return cast_amax(device);
  }
  /// Of a calibrated one, where no tensor is at hand: of the groups that it was calibrated on.
  std::vector<float> cast_amax(B& device) const { return fetched(device, double_quantized() ? file_amax_ : amax_); }
  /// The amax of the whole tensor, for two-level scales.
  float tensor_amax(B& device, geometry const& x) const {
    float value = 0;
    if (tensor_amax_.empty())
      for (float const amax : cast_amax(device, x)) value = std::max(value, amax);
    else
      device.copy_to_host(&value, tensor_amax_.data(), sizeof value);
    return value;
  }
  /// Keeps it where it is, whatever becomes of the groups' amaxes: a search changes those alone. Until the next
  /// `observe`.
  bool holds_tensor_amax() const { return !tensor_amax_.empty(); }
  void hold_tensor_amax(B& device, float value) {
    tensor_amax_ = buffer_of(device, value);
  }

  /// Of an affine quantizer; null for others.
  affine_bias<B>* bias() { return bias_ ? &*bias_ : nullptr; }
  affine_bias<B> const* bias() const { return bias_ ? &*bias_ : nullptr; }

  /// NaN and infinities seen while calibrating.
  std::uint64_t nonfinite(B& device) const { return flags(device).nonfinite; }

  /// How x is divided under this quantizer's attributes: elements that share a scale.
  partition grouping(geometry const& x) const { return numerics_.groups_of(x, name_); }
  /// What of x has an amax of its own: the same, or all of it where blocks look at the data.
  partition calibrated_grouping(geometry const& x) const {
    return numerics_.groups_from_data ? per_tensor(x) : grouping(x);
  }

 private:
  static std::vector<float> fetched(B& device, buffer<B, float> const& from) {
    std::vector<float> values(from.size());
    if (!values.empty()) device.copy_to_host(values.data(), from.data(), values.size() * sizeof(float));
    return values;
  }
  bool calibrates_amax() const { return numerics_.amax_from == amax_source::calibration; }

  /// Are elements cast with the scales that a file's codes stand for?
  bool double_quantized() const { return numerics_.how.scale_block > 0 && calibrates_amax(); }
  /// What double quantization makes of an amax.
  void hold_file_amax(B& device, std::vector<float> const& amax) {
    if (!double_quantized()) return;
    format const& how = numerics_.how;
    auto const scales = quantize_scales(detail::span_of(amax), how, dtype::f32);
    auto const values = scale_values(scales, how, dtype::f32, amax.size());
    file_amax_ = buffer_of(device, detail::span_of(values));
  }
  bool finished() const { return !double_quantized() || !file_amax_.empty() || released_; }

  /// Where a kernel finds the amaxes for what it casts.
  template <class Args>
  void give_amax(B& device, arena& scratch, Args& args) {
    if (is_two_level(numerics_.how.scaling)) args.tensor_amax = tensor_amax_of(device, scratch, args.x);
    if (numerics_.groups_from_data) args.use = amax_use::data;
    else args.amax = double_quantized() ? file_amax_.data() : calibrated_amax(device, scratch, args.x);
  }

  void rotate(B& device, const_tensor_ref x, tensor_ref y) const {
    device.hadamard({x, y, numerics_.rotate->block_of(x, name_)});
  }
  static tensor_ref borrow(arena& scratch, geometry const& like) {
    geometry const dense = dense_like(like);
    return {dense, scratch.allocate(static_cast<std::size_t>(dense.bytes()))};
  }
  /// x as the steps behind the rotation see it: x itself where there is none.
  const_tensor_ref rotated(B& device, arena& scratch, const_tensor_ref x) const {
    if (!numerics_.rotate) return x;
    std::int64_t const block = numerics_.rotate->block_of(x, name_);
    tensor_ref const copy = borrow(scratch, x);
    device.hadamard({x, copy, block});
    return copy;
  }
  /// x less its bias.
  const_tensor_ref shifted(B& device, arena& scratch, const_tensor_ref x) {
    float const* const bias = bias_->of(device, scratch, x);
    tensor_ref const copy = borrow(scratch, x);
    device.shift({x, copy, bias_->grouping(x), bias, true});
    return copy;
  }

  void hold(B& device, partition const& groups) {
    if (amax_.empty()) {
      amax_ = buffer<B, float>{device, static_cast<std::size_t>(groups.group_count())};
      groups_ = groups;
    }
    hold_flags(device);  // an amax that was set comes without
    require_fit(groups);
  }
  /// The groups that a calibrator is shown, which has no amax yet.
  void hold_shown(B& device, partition const& groups) {
    hold_flags(device);
    if (shown_ && !same_groups(groups, groups_)) refuse_groups(groups);
    if (!shown_) groups_ = groups;
    shown_ = true;
  }
  void hold_flags(B& device) {
    if (flags_.empty()) flags_ = buffer<B, data_flags>{device, 1};
  }

  data_flags flags(B& device) const {
    data_flags f;
    if (!flags_.empty()) device.copy_to_host(&f, flags_.data(), sizeof f);
    return f;
  }

  /// Axes with one group do not count: a tensor may come with more or fewer of them.
  static bool same_groups(partition const& a, partition const& b) {
    int i = 0, k = 0;
    for (;; ++i, ++k) {
      while (i < a.rank && a.groups[i] == 1) ++i;
      while (k < b.rank && b.groups[k] == 1) ++k;
      if (i == a.rank || k == b.rank) return i == a.rank && k == b.rank;
      if (a.groups[i] != b.groups[k]) return false;
    }
  }
  static std::string text_of(partition const& p) {
    if (p.rank == 0) return "1";
    std::string text;
    for (int axis = 0; axis < p.rank; ++axis)
      text += (axis ? "x" : "") + std::to_string(p.groups[axis]);
    return text;
  }

  void require_fit(partition const& groups) const {
    if (amax_.empty())
      fail(error_id::state_not_calibrated, name_,
           ": a static quantizer that saw no data cannot quantize; calibrate it ",
           "with a forward_loop or set its amax");
    if (!same_groups(groups, groups_)) refuse_groups(groups);
  }
  [[noreturn]] void refuse_groups(partition const& groups) const {
    fail(error_id::tensor_shape, name_, ": calibrated on ", text_of(groups_), " groups, but this tensor has ",
         text_of(groups));
  }

  /// One amax for each group that has one: of the calibration, the data or the attributes.
  float const* calibrated_amax(B& device, arena& scratch, const_tensor_ref x) {
    partition const groups = calibrated_grouping(x);
    switch (numerics_.amax_from) {
      case amax_source::data: return amax_of(device, scratch, x, groups);
      case amax_source::constant: return constant(device, scratch, groups);
      default: require_fit(groups); return amax_.data();
    }
  }

  /// The amax of the whole tensor: the largest of its groups' where they have their own.
  float const* tensor_amax_of(B& device, arena& scratch, const_tensor_ref x) {
    if (!tensor_amax_.empty()) return tensor_amax_.data();
    float const* const amax = calibrated_amax(device, scratch, x);
    if (numerics_.groups_from_data) return amax;
    std::int64_t const count = calibrated_grouping(x).group_count();
    const_tensor_ref const all{dense_geometry(dtype::f32, {count}), amax};
    return amax_of(device, scratch, all, per_tensor(all));
  }

  void require_positive(B& device, arena& scratch, fake_quantize_args args) {
    // a dry run of the same kernel: x is written to scratch and only the flag is looked at
    geometry const dense = dense_like(args.x);
    args.y = {dense, scratch.allocate(static_cast<std::size_t>(dense.bytes()))};
    auto* const flags = static_cast<data_flags*>(scratch.allocate(sizeof(data_flags)));
    device.zero(flags, sizeof *flags);
    args.flags = flags;
    device.fake_quantize(args);
    check_flags(device, flags, args.x, numerics_.how, name_);
  }

  float const* amax_of(B& device, arena& scratch, const_tensor_ref x, partition const& groups) const {
    std::size_t const bytes = static_cast<std::size_t>(groups.group_count()) * sizeof(float);
    auto* const amax = static_cast<float*>(scratch.allocate(bytes));
    device.zero(amax, bytes);
    device.amax({x, groups, amax, nullptr});
    return amax;
  }

  float const* constant(B& device, arena& scratch, partition const& groups) const {
    auto const count = static_cast<std::size_t>(groups.group_count());
    auto* const amax = static_cast<float*>(scratch.allocate(count * sizeof(float)));
    for (std::size_t i = 0; i < count; ++i) device.copy_from_host(amax + i, &numerics_.constant_amax, sizeof(float));
    return amax;
  }

  std::string name_;
  quantizer_attribute_config attributes_;
  quantizer_numerics numerics_;
  std::optional<affine_bias<B>> bias_;
  buffer<B, float> amax_;
  buffer<B, float> file_amax_;  ///< of double quantization; none while the calibration runs
  buffer<B, float> tensor_amax_;  ///< where it is not the largest of the groups'
  buffer<B, data_flags> flags_;
  std::shared_ptr<scale_learner<B>> learner_;  ///< while its scale is learned
  partition groups_;
  bool released_ = false;         ///< are its amaxes in the scales of a compressed weight?
  bool shown_ = false;            ///< has a calibrator been shown anything for it?
  dtype seen_type_ = dtype::f32;  ///< of the tensors that it was calibrated on
};

}  // namespace mixbit
