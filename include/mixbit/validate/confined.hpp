// What the elements that differ have in common, in words: often half of the diagnosis where no convention fits.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mixbit/validate/difference.hpp"

namespace mixbit::validate {

/// Counts, over all samples, elements with each property and how many of them differ.
class common_properties {
 public:
  /// `p` is the claim's prediction.
  void add(sample const& s, prediction const& p, convention const& claim) {
    auto const codes = s.codes ? codes_of(*s.codes, claim, s.shape).value_or(std::vector<int>{}) : std::vector<int>{};
    auto const groups = group_numbers(s.shape, s.groups);
    auto const ragged = ragged_elements(s.shape, s.groups);
    auto const strange = strange_groups(s, groups);
    for (std::size_t i = 0; i < s.x.size(); ++i) {
      bool const value_differs = s.values && !same_value(p.values[i], (*s.values)[i]);
      bool const differs = value_differs || (!codes.empty() && codes[i] != p.codes[i]);
      auto const g = static_cast<std::size_t>(groups[i]);
      float const x = s.x[i], amax = s.amax.empty() ? 0.0f : s.amax[g];
      float const low = detail::least_normal(s.shape.type);
      std::array<bool, count> const has{
          ragged[i], fp::is_nan(x), !fp::is_nan(x) && !fp::is_finite(x), strange[g], x == 0.0f, amax == 0.0f,
          x != 0.0f && fp::abs(x) < low,
          value_differs && p.values[i] == 0.0f && (*s.values)[i] == 0.0f,
          value_differs && is_subnormal(p.values[i], (*s.values)[i], low),
          !fp::is_nan(x) && amax > 0.0f && fp::abs(x) >= amax,
          value_differs && is_tie(x, p.values[i], (*s.values)[i])};
      ++elements_;
      differing_ += differs ? 1 : 0;
      for (std::size_t k = 0; k < count; ++k) {
        with_[k] += has[k] ? 1 : 0;
        both_[k] += has[k] && differs ? 1 : 0;
      }
    }
  }

  /// Properties of every element that differs which not every element has.
  std::vector<std::string> all() const {
    constexpr std::array<char const*, count> names{
        "lie in ragged last blocks", "are NaN in the input", "are infinite in the input",
        "lie in groups with NaN or infinities", "are zero in the input", "lie in groups of zeros",
        "are subnormal in the input", "are zeros that differ in their sign alone", "have subnormal results",
        "are as large as their amax", "are ties between two values, or next to one"};
    std::vector<std::string> found;
    for (std::size_t k = 0; k < count; ++k)
      if (differing_ > 0 && both_[k] == differing_ && with_[k] < elements_) found.emplace_back(names[k]);
    return found;
  }

 private:
  static constexpr std::size_t count = 11;

  static std::vector<bool> strange_groups(sample const& s, std::span<std::int32_t const> groups) {
    std::vector<bool> strange(static_cast<std::size_t>(s.groups.group_count()), false);
    for (std::size_t i = 0; i < s.x.size(); ++i)
      if (!fp::is_finite(s.x[i])) strange[static_cast<std::size_t>(groups[i])] = true;
    return strange;
  }
  static bool is_subnormal(float a, float b, float low) {
    return (a != 0.0f && fp::abs(a) < low) || (b != 0.0f && fp::abs(b) < low);
  }
  /// Is x within four steps of float32 of the middle between the two values?
  static bool is_tie(float x, float a, float b) {
    if (!fp::is_finite(x) || !fp::is_finite(a) || !fp::is_finite(b)) return false;
    double const middle = (static_cast<double>(a) + b) / 2, distance = static_cast<double>(x) - middle;
    return a != b && (distance < 0 ? -distance : distance) <= static_cast<double>(fp::abs(x)) * 0x1p-21;
  }

  std::uint64_t elements_ = 0, differing_ = 0;
  std::array<std::uint64_t, count> with_{}, both_{};
};

}  // namespace mixbit::validate
