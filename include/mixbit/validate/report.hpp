// The result of a comparison as data; validate/text.hpp and validate/json.hpp write it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/core/tensor_view.hpp"

namespace mixbit::validate {

/// Differences between floats of one type. NaN equals NaN, and -0 is not +0.
struct value_differences {
  std::uint64_t compared = 0, differing = 0;
  std::uint64_t nan_lost = 0, nan_made = 0;  ///< NaN expected and not found; found and not expected
  std::uint64_t zero_signs = 0;              ///< zeros that differ in their sign alone
  std::map<int, std::uint64_t> ulps;         ///< b: so many differ by 2^(b-1) + 1 to 2^b steps of the type
  std::uint64_t largest_ulps = 0;
  float largest_error = 0;                   ///< of finite values
};

/// Differences between codes, in steps of the grid (found - expected); 0 where only the sign of zero differs.
struct code_differences {
  std::uint64_t compared = 0, differing = 0;
  std::map<int, std::uint64_t> steps;
};

/// One element beside the first that differs.
struct neighbour {
  extents index{};
  float x = 0;
  std::optional<float> expected, found;
  std::optional<int> expected_code, found_code;
};

/// The first place where a kernel departs from its claim.
struct first_difference {
  std::string sample, what;  ///< "output", "codes" or "scales"
  int rank = 0;
  extents index{};
  std::int64_t group = 0;
  float amax = 0;
  std::optional<float> expected_scale, found_scale;
  std::vector<neighbour> block;  ///< elements around it, of its group
  std::size_t at = 0;            ///< its place in `block`
};

/// A hypothesis and how much of the data contradicts it.
struct hypothesis {
  std::string text;                  ///< what departs from the claim; "as claimed"
  std::uint64_t mismatches = 0, compared = 0;
  std::size_t changes = 0;           ///< fields that differ from the claim
};

struct report {
  std::string claim;  ///< "int8, policy stored"
  std::uint64_t elements = 0, groups = 0;
  std::optional<value_differences> values, scales, tensor_scale;
  std::optional<code_differences> codes;
  bool codes_unreadable = false;   ///< so many bytes cannot hold the codes in the claimed layout
  bool scales_miscounted = false;  ///< another number of scales than groups
  std::optional<first_difference> first;
  std::vector<std::string> confined;    ///< what all elements that differ have in common
  std::vector<hypothesis> hypotheses;   ///< best first; those without mismatches match in every element
  bool stochastic = false;              ///< every value is one of the two neighbours, but not by one rule
  std::vector<std::string> notes;

  bool conformant() const {
    auto const same = [](auto const& d) { return !d || d->differing == 0; };
    return same(values) && same(scales) && same(tensor_scale) && same(codes) && !codes_unreadable &&
           !scales_miscounted;
  }

  /// Does a hypothesis other than the claim explain everything?
  bool explained() const { return !conformant() && !hypotheses.empty() && hypotheses.front().mismatches == 0; }
};

}  // namespace mixbit::validate
