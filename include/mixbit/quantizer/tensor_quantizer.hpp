// One quantizer of one tensor: its attributes, its amax and what it does to data.
//
// Life: made from attributes (already validated); a static quantizer observes data (running max of |x| a group) or is
// given an amax; then it quantizes. Dynamic quantizers take amax from the data of each call. Source of the rules:
// docs/numerics.md; ModelOpt's TensorQuantizer is the model for names and life cycle.
#pragma once

#include <string>
#include <vector>

#include "mixbit/formats/check.hpp"
#include "mixbit/quantizer/numerics.hpp"
#include "mixbit/quantizer/workspace.hpp"

namespace mixbit {

template <backend B>
class tensor_quantizer {
 public:
  /// `name` is the full one ("model.layers.0.mlp.up_proj.weight_quantizer"), used in every message.
  tensor_quantizer(std::string name, quantizer_attribute_config attributes, policy numerics)
      : name_{std::move(name)},
        attributes_{std::move(attributes)},
        numerics_{interpret(attributes_, numerics, name_)} {}

  std::string const& name() const { return name_; }
  quantizer_attribute_config const& attributes() const { return attributes_; }
  quantizer_numerics const& numerics() const { return numerics_; }

  /// True where calibration has to show it data before it can quantize.
  bool needs_calibration() const { return numerics_.amax_from == amax_source::calibration; }
  bool has_amax() const { return !amax_.empty(); }
  /// True once it may quantize.
  bool ready() const { return !needs_calibration() || has_amax(); }

  /// Running max over what it is shown; a tensor without elements (an expert without tokens) shows nothing. Throws
  /// `tensor_shape` where a batch has another number of groups.
  void observe(B& device, const_tensor_ref x) {
    if (x.size() == 0) return;
    partition const groups = grouping(x);
    hold(device, groups);
    device.amax({x, groups, amax_.data(), flags_.data()});
  }

  /// Takes over what another quantizer of the same grouping has observed: its running max, and what it left out.
  void adopt(B& device, tensor_quantizer const& other) {
    hold(device, other.groups_);
    std::vector<float> const values = other.amax(device);
    device.copy_from_host(amax_.data(), values.data(), values.size() * sizeof(float));
    data_flags const seen = other.flags(device);
    device.copy_from_host(flags_.data(), &seen, sizeof seen);
  }

  /// y = Q(x); y may be x. Throws `state_not_calibrated`, or `format_unsigned` (x and y untouched on a CPU).
  void quantize(B& device, arena& scratch, const_tensor_ref x, tensor_ref y) {
    partition const groups = grouping(x);
    float const* amax = nullptr;
    switch (numerics_.amax_from) {
      case amax_source::data: amax = amax_of(device, scratch, x, groups); break;
      case amax_source::constant: amax = constant(device, scratch, groups); break;
      case amax_source::calibration:
        require_fit(groups);
        amax = amax_.data();
    }
    if (numerics_.how.element.is_unsigned) require_positive(device, scratch, x, groups, amax);
    device.fake_quantize({x, y, groups, amax, numerics_.how, nullptr});
  }

  /// The backward of a clipped quantizer: grad = 0 where |x| > amax. Nothing for a straight-through one.
  void mask_backward(B& device, arena& scratch, const_tensor_ref x, tensor_ref grad) {
    if (attributes_.pass_through_bwd) return;
    partition const groups = grouping(x);
    float const* const amax = numerics_.amax_from == amax_source::data ? amax_of(device, scratch, x, groups)
                              : numerics_.amax_from == amax_source::constant ? constant(device, scratch, groups)
                                                                             : amax_.data();
    if (numerics_.amax_from == amax_source::calibration) require_fit(groups);
    device.backward_mask({x, grad, groups, amax});
  }

  /// Its amax on the host, one a group in row-major order; waits for the device.
  std::vector<float> amax(B& device) const {
    std::vector<float> values(amax_.size());
    if (!values.empty()) device.copy_to_host(values.data(), amax_.data(), values.size() * sizeof(float));
    return values;
  }
  /// Sets it; throws `format_amax` for a negative or non-finite value, naming quantizer and value.
  void set_amax(B& device, partition const& groups, std::vector<float> const& values) {
    if (static_cast<std::int64_t>(values.size()) != groups.group_count())
      fail(error_id::tensor_shape, name_, ": ", values.size(), " amax values for ", groups.group_count(), " groups");
    check_amax(values, numerics_.how, dtype::f32, name_);
    buffer<B, float> next{device, values.size()};
    device.copy_from_host(next.data(), values.data(), values.size() * sizeof(float));
    amax_ = std::move(next);
    groups_ = groups;
  }
  partition const& groups() const { return groups_; }
  float const* device_amax() const { return amax_.data(); }

  /// NaN and infinities seen while calibrating.
  std::uint64_t nonfinite(B& device) const { return flags(device).nonfinite; }

  /// How x is divided under this quantizer's attributes.
  partition grouping(geometry const& x) const { return numerics_.groups_of(x, name_); }

 private:
  void hold(B& device, partition const& groups) {
    if (amax_.empty()) {
      amax_ = buffer<B, float>{device, static_cast<std::size_t>(groups.group_count())};
      groups_ = groups;
    }
    if (flags_.empty()) flags_ = buffer<B, data_flags>{device, 1};  // an amax that was set comes without
    require_fit(groups);
  }

  data_flags flags(B& device) const {
    data_flags f;
    if (!flags_.empty()) device.copy_to_host(&f, flags_.data(), sizeof f);
    return f;
  }

  void require_fit(partition const& groups) const {
    if (amax_.empty())
      fail(error_id::state_not_calibrated, name_,
           ": a static quantizer that saw no data cannot quantize; calibrate it ",
           "with a forward_loop or set its amax");
    if (groups.group_count() != groups_.group_count())
      fail(error_id::tensor_shape, name_, ": calibrated on ", groups_.group_count(), " groups, but this tensor has ",
           groups.group_count());
  }

  void require_positive(B& device, arena& scratch, const_tensor_ref x, partition const& groups, float const* amax) {
    // a dry run of the same kernel: x is written to scratch and only the flag is looked at
    geometry const dense = dense_like(x);
    tensor_ref const trial{dense, scratch.allocate(static_cast<std::size_t>(dense.bytes()))};
    auto* const flags = static_cast<data_flags*>(scratch.allocate(sizeof(data_flags)));
    device.zero(flags, sizeof *flags);
    device.fake_quantize({x, trial, groups, amax, numerics_.how, flags});
    data_flags seen;
    device.copy_to_host(&seen, flags, sizeof seen);
    if (seen.negative_unsigned != 0)
      fail(error_id::format_unsigned, name_, ": ", seen.negative_unsigned,
           " negative value(s) in a tensor quantized to ", name_of(numerics_.how.element));
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
  buffer<B, float> amax_;
  buffer<B, data_flags> flags_;
  partition groups_;
};

}  // namespace mixbit
