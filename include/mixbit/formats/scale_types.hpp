// The types in which files hold the scales of groups: the compute types, and two of eight bits.
#pragma once

#include "mixbit/formats/minifloat.hpp"

namespace mixbit::formats {

/// E4M3: the block scales of NVFP4.
struct e4m3_scale {
  std::uint8_t bits = 0;
  friend constexpr bool operator==(e4m3_scale, e4m3_scale) = default;
};

/// E8M0: 2^(bits - 127), all ones is NaN. The scales of MX blocks (OCP Microscaling Formats 1.0, section 5.4.1).
struct e8m0_scale {
  std::uint8_t bits = 0;
  friend constexpr bool operator==(e8m0_scale, e8m0_scale) = default;
};

/// A scale as a number, exactly.
template <class S>
MIXBIT_HD constexpr float scale_value(S s) {
  if constexpr (std::is_same_v<S, e4m3_scale>) return e4m3::value(s.bits);
  else if constexpr (std::is_same_v<S, e8m0_scale>)
    return s.bits == 0xff ? fp::from_bits(0x7fc00000u) : power_of_two(static_cast<int>(s.bits) - 127);
  else return to_float(s);
}

/// A number that S holds exactly (a rule's file_scale), as S.
template <class S>
MIXBIT_HD constexpr S scale_as(float value) {
  if constexpr (std::is_same_v<S, e4m3_scale>) return {static_cast<std::uint8_t>(e4m3::code(value))};
  else if constexpr (std::is_same_v<S, e8m0_scale>) return {static_cast<std::uint8_t>(fp::bits(value) >> 23)};
  else return from_float<S>(value);
}

constexpr bool is_scale_type(dtype t) { return is_compute(t) || t == dtype::f8_e4m3 || t == dtype::f8_e8m0; }

/// Calls f with a default-constructed scale of the type; throws `tensor_dtype` for one that holds no scales.
template <class F>
decltype(auto) visit_scale(dtype t, F&& f) {
  switch (t) {
    case dtype::f8_e4m3: return f(e4m3_scale{});
    case dtype::f8_e8m0: return f(e8m0_scale{});
    default: return visit_compute(t, f);
  }
}

}  // namespace mixbit::formats
