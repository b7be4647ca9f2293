// One element under a convention that no format has: another rounding, or another arithmetic for the scale.
//
// The rules of formats/ stay the definition; this only says how kernels in the field depart from them, so that a report
// can name the departure. A grid gives the neighbours of a value exactly, and the mode picks one of them.
#pragma once

#include <cmath>
#include <optional>

#include "mixbit/formats/rules.hpp"
#include "mixbit/validate/convention.hpp"

namespace mixbit::validate {

/// The values of an integer or minifloat element.
class element_grid {
 public:
  explicit element_grid(format const& how)
      : integer_{how.element.kind == element_kind::integer},
        codec_{integer_ ? e2m1_element : how.element},
        highest_{integer_ ? formats::integer_bound(how.element) : codec_.largest()},
        lowest_{!integer_ || is_mx(how.scaling) ? -highest_ : formats::integer_minimum(how.element)} {}

  float highest() const { return highest_; }
  float lowest() const { return lowest_; }

  /// The value for v, which is not NaN; `mode` is not `of_format`.
  float round(float v, rounding_mode mode) const {
    float const bounded = formats::clamp(v, lowest_, highest_), magnitude = fp::abs(bounded);
    if (mode == rounding_mode::half_added && integer_)  // 8.4999995 + 0.5 is 9 in float32
      return formats::clamp(fp::copy_sign(std::floor(magnitude + 0.5f), bounded), lowest_, highest_);
    float const below = floor_of(magnitude), above = below == magnitude ? below : next_of(below);
    bool const up = below != magnitude && goes_up(mode, magnitude, below, above, bounded < 0.0f);
    return fp::copy_sign(up ? above : below, bounded);
  }

  /// The code of a value of the grid; integers have no -0.
  int code(float value) const { return integer_ ? static_cast<int>(value) : codec_.code(value); }

 private:
  float floor_of(float magnitude) const {
    if (integer_) return std::floor(magnitude);
    int const nearest = codec_.code(magnitude);
    float const value = codec_.value(nearest);
    return value > magnitude ? codec_.value(nearest - 1) : value;
  }
  float next_of(float value) const { return integer_ ? value + 1.0f : codec_.value(codec_.code(value) + 1); }
  bool is_even(float value) const {
    if (integer_) return std::fmod(value, 2.0f) == 0.0f;
    return codec_.code(value) % 2 == 0;
  }

  bool goes_up(rounding_mode mode, float m, float below, float above, bool negative) const {
    double const low = static_cast<double>(m) - below, high = static_cast<double>(above) - m;
    if (mode == rounding_mode::toward_zero) return false;
    if (mode == rounding_mode::away) return true;
    if (mode == rounding_mode::down) return negative;
    if (low != high) return low > high;
    switch (mode) {
      case rounding_mode::half_away: case rounding_mode::half_added: return true;
      case rounding_mode::half_up: return !negative;
      case rounding_mode::half_toward: return false;
      default: return !is_even(below);
    }
  }

  bool integer_;
  formats::minifloat_codec codec_;
  float highest_, lowest_;
};

/// Is there an emulation of other roundings and arithmetics? Not of tables, nor where a block tries two scales.
constexpr bool can_emulate(format const& how) {
  return how.element.kind != element_kind::lookup && how.scaling != scale_rule::four_over_six;
}

/// How one group's elements are scaled, spelled out.
struct scaling_steps {
  float forward = 1, backward = 1;
  bool divides = true;       ///< x / forward, else x * forward
  bool divides_back = false; ///< q / backward, else q * backward
};

class emulation {
 public:
  /// `c.how` can be emulated.
  emulation(convention const& c, formats::rule_inputs const& in)
      : how_{c.how}, in_{in}, grid_{c.how}, scaling_{c.scaling},
        mode_{c.rounding == rounding_mode::of_format ? native_rounding(c.how) : c.rounding},
        rounds_{c.how.numerics == policy::modelopt_pack && c.how.scaling == scale_rule::ratio} {}

  /// The steps for a group; nothing where its scale is zero, which has no arithmetic to depart from.
  std::optional<scaling_steps> steps(float amax) const {
    bool const tiny = how_.numerics == policy::modelopt && amax <= formats::tiny_amax;
    if (amax == 0.0f || tiny) return std::nullopt;
    scaling_steps s = how_.scaling != scale_rule::ratio || scaling_ == arithmetic::of_format ? own_steps(amax)
                                                                                             : ratio_steps(amax);
    if (how_.scaling != scale_rule::ratio && scaling_ == arithmetic::reciprocal && s.divides) {
      s.forward = fp::div(1.0f, s.forward);
      s.divides = false;
    }
    if (s.forward == 0.0f) return std::nullopt;
    return s;  // an infinite reciprocal of a subnormal scale saturates, as it does in a kernel
  }

  /// The value on the grid of x, which is neither NaN nor zero.
  float quantize(scaling_steps const& s, float x) const {
    return grid_.round(through(s.divides ? fp::div(x, s.forward) : fp::mul(x, s.forward)), mode_);
  }
  float restore(scaling_steps const& s, float q) const {
    if (!keeps_sign_of_zero()) q += 0.0f;
    float const value = how_.element.kind == element_kind::minifloat ? through(q) : q;
    return s.divides_back ? fp::div(value, s.backward) : fp::mul(value, s.backward);
  }
  int code(float q) const { return grid_.code(q); }

  /// The mode in which the rule itself rounds.
  static rounding_mode native_rounding(format const& how) {
    switch (mixbit::detail::rounding_of(how)) {
      case mixbit::rounding::half_away: return rounding_mode::half_away;
      case mixbit::rounding::half_toward: return rounding_mode::half_toward;
      default: return rounding_mode::half_even;
    }
  }

  /// The arithmetic that is a policy's own, where it is one of these.
  static arithmetic native_scaling(format const& how) {
    bool const integer = how.element.kind == element_kind::integer;
    if (how.numerics == policy::modelopt) return integer ? arithmetic::inverse : arithmetic::of_format;
    bool const inverse = how.numerics == policy::modelopt_pack && formats::packs_inverse_scale(how.element);
    return inverse ? arithmetic::of_format : arithmetic::divides;
  }

 private:
  bool keeps_sign_of_zero() const {
    if (how_.element.kind == element_kind::integer) return how_.numerics == policy::modelopt;
    bool const exact = how_.numerics == policy::stored || (how_.numerics != policy::modelopt_pack && in_.from_data);
    return !is_two_level(how_.scaling) || exact;
  }

  float through(float v) const { return rounds_ ? formats::through(in_.type, v) : v; }

  scaling_steps own_steps(float amax) const {
    formats::scaling const s = formats::visit_rule(how_, in_, [&](auto const& rule) { return rule.prepare(amax); });
    bool const modelopt = how_.numerics == policy::modelopt, ratio = how_.scaling == scale_rule::ratio;
    bool const inverse = ratio && how_.numerics == policy::modelopt_pack && formats::packs_inverse_scale(how_.element);
    bool const two_level = is_two_level(how_.scaling);
    bool const multiplies = is_mx(how_.scaling) || inverse || (modelopt && (ratio || (two_level && in_.from_data)));
    return {s.forward, s.backward, !multiplies,
            inverse || (modelopt && ratio && how_.element.kind == element_kind::integer)};
  }

  scaling_steps ratio_steps(float amax) const {
    float const b = grid_.highest(), inverse = through(fp::div(b, amax));
    float scale = formats::through(how_.scale_type, through(fp::div(amax, b)));
    switch (scaling_) {
      case arithmetic::reciprocal: return {through(fp::div(1.0f, scale)), scale, false, false};
      case arithmetic::inverse: return {inverse, inverse, false, true};
      case arithmetic::inverse_product: return {inverse, through(fp::div(1.0f, inverse)), false, false};
      case arithmetic::inverse_ratio: return {inverse, scale, false, false};
      case arithmetic::bound_reciprocal:
        scale = formats::through(how_.scale_type, through(fp::mul(amax, fp::div(1.0f, b))));
        return {scale, scale, true, false};
      default: return {scale, scale, true, false};
    }
  }

  format how_;
  formats::rule_inputs in_;
  element_grid grid_;
  arithmetic scaling_;
  rounding_mode mode_;
  bool rounds_;
};

}  // namespace mixbit::validate
