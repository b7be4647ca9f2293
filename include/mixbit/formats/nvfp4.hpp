// NVFP4: E2M1 in blocks of 16, an E4M3 scale a block and a float32 scale a tensor. Sources: the OCP Microscaling
// specification for E2M1; ModelOpt's NVFP4QTensor (pack), its tensor_quant_mx.cu and Triton kernels (modelopt,
// modelopt_triton, and the static scales of calibrated weights).
#pragma once

#include "mixbit/formats/minifloat.hpp"

namespace mixbit::formats {

/// The largest product of an E2M1 value and an E4M3 scale: 6·448; four-over-six leaves room for 1.5 times a scale.
MIXBIT_HD constexpr float nvfp4_range(scale_rule r) {
  return r == scale_rule::four_over_six ? 6.0f * 256.0f : 6.0f * 448.0f;
}

/// The scale of a tensor as files hold it.
MIXBIT_HD constexpr float nvfp4_tensor_scale(scale_rule r, float tensor_amax) {
  return fp::div(tensor_amax, nvfp4_range(r));
}

template <policy P>
class nvfp4_rule {
 public:
  MIXBIT_HD constexpr nvfp4_rule(format const& how, rule_inputs const& in)
      : rule_{how.scaling},
        dynamic_{in.from_data},
        tensor_amax_{in.tensor_amax},
        tensor_scale_{nvfp4_tensor_scale(how.scaling, in.tensor_amax)} {}

  /// The same rule for a tensor with this amax: where it lies in a device's memory, the host makes the rule without.
  MIXBIT_HD constexpr nvfp4_rule of_tensor(float tensor_amax) const {
    nvfp4_rule other = *this;
    other.tensor_amax_ = tensor_amax;
    other.tensor_scale_ = nvfp4_tensor_scale(rule_, tensor_amax);
    return other;
  }
  MIXBIT_HD constexpr float tensor_scale() const { return tensor_scale_; }

  /// Of a block: an E4M3 value.
  MIXBIT_HD constexpr float file_scale(float amax) const {
    if constexpr (P == policy::modelopt)
      return dynamic_ ? e4m3::round(static_cast<float>(static_cast<double>(fp::div(amax, 6.0f)) * widened()))
                      : e4m3::round(fp::mul(fp::div(amax, 6.0f), static_factor()));
    else if constexpr (P == policy::modelopt_triton)
      return dynamic_ ? e4m3::round(fp::div(amax, fp::mul(6.0f, triton_scale())))
                      : e4m3::round(fp::mul(fp::div(amax, 6.0f), static_factor()));
    else
      return packed_scale(amax);
  }

  MIXBIT_HD constexpr scaling of_scale(float scale) const {
    if constexpr (P == policy::modelopt || P == policy::modelopt_triton) {
      if (!dynamic_) return static_scaling(fp::mul(scale, fp::div(1.0f, static_factor())));
      if constexpr (P == policy::modelopt) {
        double const unscale = static_cast<double>(scale) / widened();
        return {unscale == 0.0 ? 1.0f : static_cast<float>(1.0 / unscale), static_cast<float>(unscale)};
      }
      float const used = fp::mul(scale, triton_scale());
      float const s = used >= 1e-5f ? used : 1.0f;
      return {s, s};
    }
    return stored_scaling(effective(scale, tensor_scale_));
  }

  MIXBIT_HD constexpr scaling prepare(float amax) const {
    if (P == policy::modelopt && dynamic_ && (amax == 0.0f || tensor_amax_ == 0.0f)) return {1.0f, 1.0f};
    return of_scale(file_scale(amax));
  }

  /// Four-over-six: the amax under which the largest value of the block is coded as 4 instead of 6.
  MIXBIT_HD constexpr float alternative(float amax) const { return fp::mul(amax, 1.5f); }
  MIXBIT_HD constexpr bool has_alternative() const { return rule_ == scale_rule::four_over_six; }

  MIXBIT_HD static constexpr float effective(float file_scale, float tensor_scale) {
    return fp::mul(file_scale, tensor_scale);
  }

  MIXBIT_HD constexpr float fake_quantize(scaling const& s, float x) const {
    float const y = fp::mul(e2m1::round(scaled(s, x)), s.backward);
    return P == policy::modelopt_pack || (P != policy::stored && !dynamic_) ? y + 0.0f : y;
  }
  MIXBIT_HD constexpr int encode(scaling const& s, float x) const { return e2m1::code(scaled(s, x)); }
  MIXBIT_HD constexpr float decode(float scale, int code) const {
    float const y = fp::mul(e2m1::value(code), scale);
    return P == policy::modelopt_pack ? y + 0.0f : y;  // NVFP4QTensor reads the code of -0 as +0
  }

 private:
  MIXBIT_HD constexpr float packed_scale(float amax) const {
    if (tensor_scale_ == 0.0f || amax == 0.0f) return 1.0f;
    float const s = fp::div(amax, fp::mul(6.0f, tensor_scale_));
    return e4m3::round(clamp(s == 0.0f ? 1.0f : s, 0x1p-9f, 448.0f));
  }

  MIXBIT_HD static constexpr scaling static_scaling(float scale) {
    return stored_scaling(fp::is_finite(scale) ? scale : 1.0f);
  }

  /// compute_scale_with_global: 448 · (6/amax), the product in float64.
  MIXBIT_HD constexpr double widened() const { return 448.0 * static_cast<double>(fp::div(6.0f, tensor_amax_)); }

  MIXBIT_HD constexpr float triton_scale() const { return tensor_scale_ > 0.0f ? tensor_scale_ : 1e-12f; }

  /// Static block scales are an FP8 tensor of its own, whose amax is that of the tensor over 6.
  MIXBIT_HD constexpr float static_factor() const {
    float const amax = fp::div(tensor_amax_, 6.0f), largest = fp::div(nvfp4_range(rule_), 6.0f);
    return fp::mul(largest, fp::div(1.0f, amax <= tiny_amax ? 1.0f : amax));
  }

  MIXBIT_HD constexpr float scaled(scaling const& s, float x) const {
    // -0 becomes +0: the code of -0 belongs to negative values that round to zero
    if constexpr (P == policy::modelopt) {
      float const v = dynamic_ ? fp::mul(x, s.forward) : masked(fp::div(x, s.forward), s.keep);
      return fp::is_nan(x) && dynamic_ ? 6.0f : v;
    } else {
      return masked(fp::div(x + 0.0f, s.forward), s.keep);
    }
  }

  scale_rule rule_;
  bool dynamic_;
  float tensor_amax_, tensor_scale_;
};

}  // namespace mixbit::formats
