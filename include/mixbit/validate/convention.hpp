// What somebody's kernel may be computing: a format, and how the kernel differs from it.
//
// Every field's first value is what the format says; each other value is a mistake, or another convention, seen in the
// field. A hypothesis is one `convention`; validate/search.hpp changes the fields until one explains what was found.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/core/partition.hpp"
#include "mixbit/formats/describe.hpp"

namespace mixbit::validate {

/// How a scaled value goes to the grid.
enum class rounding_mode : std::uint8_t {
  of_format, half_even, half_away, half_added, half_up, half_toward, toward_zero, away, down
};

/// How an element meets its scale, b being the format's largest value.
enum class arithmetic : std::uint8_t {
  of_format,
  divides,             ///< s = amax/b; x/s; q*s
  reciprocal,          ///< s = amax/b; x*(1/s); q*s
  inverse,             ///< k = b/amax; x*k; q/k
  inverse_product,     ///< k = b/amax; x*k; q*(1/k)
  inverse_ratio,       ///< k = b/amax; x*k; q*(amax/b)
  bound_reciprocal     ///< s = amax*(1/b); x/s; q*s
};

/// What becomes of NaN.
enum class nan_use : std::uint8_t { of_format, kept, zero, highest, lowest };

/// The sign of results that are zero.
enum class zero_sign : std::uint8_t { of_format, of_input, positive };

/// Subnormal numbers that count as zero.
enum class flush : std::uint8_t { none, inputs, results };

/// What becomes of the elements of a last block that is shorter than the others.
enum class tail_use : std::uint8_t { of_format, copied, zeroed };

/// Which group's scale is used for a group.
enum class scale_place : std::uint8_t { own, previous, next, first, transposed };

/// What an array of scales holds.
enum class scale_content : std::uint8_t { of_format, reciprocal, amax, folded };

/// Which groups share an amax, where not those of the claim.
struct regrouping {
  enum class kind : std::uint8_t { none, tensor, axis, block } what = kind::none;
  std::int64_t value = 0;  ///< the axis that is kept, or the block's size
  friend constexpr bool operator==(regrouping const&, regrouping const&) = default;
};

/// How bytes are read as codes.
struct code_reading {
  packing layout = packing::bytes;
  bool swapped = false;  ///< nibbles of a byte in the other order
  bool offset = false;   ///< 2^(bits-1) was added to a code
  friend constexpr bool operator==(code_reading const&, code_reading const&) = default;
};

struct convention {
  format how;
  regrouping groups;
  rounding_mode rounding = rounding_mode::of_format;
  arithmetic scaling = arithmetic::of_format;
  nan_use nan = nan_use::of_format;
  zero_sign zeros = zero_sign::of_format;
  flush subnormals = flush::none;
  tail_use tail = tail_use::of_format;
  scale_place place = scale_place::own;
  bool no_tensor_scale = false;  ///< two-level scales without the second
  code_reading reading;          ///< of codes
  scale_content content = scale_content::of_format;  ///< of an array of scales
  bool scales_transposed = false;                    ///< the array itself, not its use
  friend constexpr bool operator==(convention const&, convention const&) = default;
};

/// A format as it is written, without deviations.
inline convention claim_of(format const& how) {
  convention c;
  c.how = how;
  c.reading = {how.layout, false, formats::stores_offset(how.layout, how.element)};
  return c;
}

inline std::string name_of(rounding_mode r) {
  constexpr std::string_view names[] = {"the format's rounding", "half to even", "half away from zero",
                                        "truncation after adding a half, which rounds itself", "half up",
                                        "half toward zero", "truncation toward zero", "away from zero",
                                        "rounding down"};
  return std::string{names[static_cast<int>(r)]};
}

inline std::string name_of(arithmetic a) {
  constexpr std::string_view names[] = {
      "the format's scaling", "x / s with s = amax/bound", "x * (1/s), a reciprocal instead of a division",
      "x * k and q / k with k = bound/amax", "x * k and q * (1/k) with k = bound/amax",
      "x * (bound/amax) and q * (amax/bound)", "s = amax * (1/bound), a reciprocal of the bound"};
  return std::string{names[static_cast<int>(a)]};
}

inline std::string name_of(nan_use n) {
  constexpr std::string_view names[] = {"the format's NaN", "NaN kept", "NaN becomes zero",
                                        "NaN becomes the largest value", "NaN becomes the smallest value"};
  return std::string{names[static_cast<int>(n)]};
}

inline std::string name_of(scale_place p) {
  constexpr std::string_view names[] = {"each group's own scale", "the scale of the previous group",
                                        "the scale of the next group", "the first group's scale for all groups",
                                        "scales read transposed"};
  return std::string{names[static_cast<int>(p)]};
}

inline std::string name_of(scale_content s) {
  constexpr std::string_view names[] = {"scales as the format holds them", "reciprocals of the scales",
                                        "amax in place of scales", "scales with the tensor's scale folded in"};
  return std::string{names[static_cast<int>(s)]};
}

inline std::string name_of(regrouping const& g) {
  switch (g.what) {
    case regrouping::kind::tensor: return "one group for the whole tensor";
    case regrouping::kind::axis: return "one group an index of axis " + std::to_string(g.value);
    case regrouping::kind::block: return "blocks of " + std::to_string(g.value);
    default: return "the claimed groups";
  }
}

/// "two codes a byte, low nibble first", of codes of so many bits.
inline std::string name_of(code_reading const& r, int bits) {
  std::string text;
  switch (r.layout) {
    case packing::bytes: text = bits > 8 ? "two bytes a code" : "one byte a code"; break;
    case packing::nibbles_row_pairs:
      text = std::string{"rows in pairs, the even row in the "} + (r.swapped ? "high" : "low") + " nibble";
      break;
    case packing::nibbles_high_first:
      text = std::string{"nibbles "} + (r.swapped ? "low" : "high") + " first over the flat tensor";
      break;
    case packing::dense_rows:
      text = bits == 4 ? std::string{"nibbles "} + (r.swapped ? "high" : "low") + " first in rows" : "dense rows";
  }
  return text + (r.offset ? ", codes with an offset of " + std::to_string(1 << (bits - 1)) : "");
}

namespace detail {
inline void add_element_changes(std::vector<std::string>& all, format const& a, format const& b) {
  if (a.numerics != b.numerics) all.push_back("policy " + std::string{mixbit::name_of(a.numerics)});
  if (a.element != b.element)
    all.push_back(a.element.kind == element_kind::integer && a.element.bits == b.element.bits &&
                          a.element.is_unsigned == b.element.is_unsigned
                      ? a.element.narrow_range ? "narrow range (codes from -bound)" : "full range (codes from -bound-1)"
                      : "element " + mixbit::name_of(a.element));
  if (a.scaling != b.scaling) all.push_back("scale rule " + std::string{mixbit::name_of(a.scaling)});
  if (a.scale_type != b.scale_type)
    all.push_back("scales rounded to " + std::string{mixbit::name_of(a.scale_type)});
}
}  // namespace detail

/// What sets `c` apart from `claim`, one text a field; empty where nothing does.
inline std::vector<std::string> changes(convention const& c, convention const& claim) {
  std::vector<std::string> all;
  detail::add_element_changes(all, c.how, claim.how);
  auto const add = [&](bool differs, std::string text) {
    if (differs) all.push_back(std::move(text));
  };
  add(c.groups != claim.groups, name_of(c.groups));
  add(c.rounding != claim.rounding, name_of(c.rounding));
  add(c.scaling != claim.scaling, name_of(c.scaling));
  add(c.nan != claim.nan, name_of(c.nan));
  add(c.zeros != claim.zeros, c.zeros == zero_sign::positive ? "zeros without a sign" : "zeros with the sign of x");
  add(c.subnormals != claim.subnormals, c.subnormals == flush::inputs ? "subnormal inputs flushed to zero"
                                                                      : "subnormal results flushed to zero");
  add(c.tail != claim.tail, c.tail == tail_use::copied ? "ragged last blocks left as they are"
                                                       : "ragged last blocks set to zero");
  add(c.place != claim.place, name_of(c.place));
  add(c.no_tensor_scale != claim.no_tensor_scale, "no tensor scale");
  add(c.reading != claim.reading, name_of(c.reading, c.how.element.bits));
  add(c.content != claim.content, name_of(c.content));
  add(c.scales_transposed != claim.scales_transposed, "scales stored transposed");
  return all;
}

/// The changes in one line, or "as claimed".
inline std::string describe_changes(convention const& c, convention const& claim) {
  std::string text;
  for (std::string const& change : changes(c, claim)) text.append(text.empty() ? "" : "; ").append(change);
  return text.empty() ? "as claimed" : text;
}

/// "int8, policy stored", for the head of a report.
inline std::string name_of(convention const& c) {
  return mixbit::name_of(c.how).append(", policy ").append(mixbit::name_of(c.how.numerics));
}

/// The groups of a convention over a tensor. `claimed` are those of the claim; blocks change along its line axis, and a
/// tensor without the axis of a convention has the claim's.
inline partition groups_of(regrouping const& r, geometry const& g, partition const& claimed) {
  switch (r.what) {
    case regrouping::kind::tensor: return per_tensor(g);
    case regrouping::kind::axis: {
      if (r.value >= g.rank) return claimed;
      int const kept[] = {static_cast<int>(r.value)};
      return per_axes(g, kept);
    }
    case regrouping::kind::block: {
      int const axis = line_axis(claimed).value_or(g.rank - 1);
      if (axis < 0) return claimed;
      std::vector<axis_block> blocks{{axis, r.value}};
      return blocks_of(g, blocks);
    }
    default: return claimed;
  }
}

}  // namespace mixbit::validate
