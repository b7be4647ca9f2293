// What a module's weight costs under a recipe, in bits.
//
// exact:    the encoded weight's own size in the format's storage - payload, scales in the type written, padding.
// modelopt: elements × nominal bits, ModelOpt's approximation, for comparison with its searches.
// What stays unquantized costs 16 bits an element (bfloat16) in both.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include "mixbit/formats/storage.hpp"
#include "mixbit/model/module.hpp"

namespace mixbit {

enum class cost_model : std::uint8_t { exact, modelopt };

constexpr std::string_view name_of(cost_model c) { return c == cost_model::exact ? "exact" : "modelopt"; }

/// Bits an element that attributes stand for: effective_bits if given, else what num_bits says.
inline double nominal_bits(quantizer_attribute_config const& a) {
  if (a.effective_bits) return *a.effective_bits;
  return a.num_bits.is_name() ? 16.0 : a.num_bits.bits();
}

/// Nominal bits of a module's weight: the narrowest member of its quantizer; 16 where it has none.
template <backend B>
double nominal_bits(recipe_quantizers<B>& q) {
  auto* const weight = q.find(quantizer_role::weight);
  double bits = 16;
  if (weight != nullptr)
    for (auto const& m : weight->members()) bits = std::min(bits, nominal_bits(m.attributes()));
  return bits;
}

/// Bits that `weight` takes under these quantizers. For several members in order the first holds the codes, and each
/// its scales.
template <backend B>
std::int64_t cost_bits(cost_model model, recipe_quantizers<B>& q, const_tensor_ref weight) {
  auto* const quantizer = q.find(quantizer_role::weight);
  if (quantizer == nullptr) return 16 * weight.size();
  if (model == cost_model::modelopt)
    return static_cast<std::int64_t>(std::ceil(static_cast<double>(weight.size()) * nominal_bits(q)));
  std::int64_t bits = 0;
  for (std::size_t i = 0; i < quantizer->members().size(); ++i) {
    auto const& m = quantizer->members()[i];
    storage_size const size = storage_size_of(m.numerics().how, weight, m.grouping(weight));
    bits += 8 * (size.scales + size.tensor + (i == 0 ? size.payload : 0));
  }
  return bits;
}

/// "INT4_BLOCKWISE_WEIGHT_ONLY_CFG(effective-bits: 4.0)": a whole number keeps one decimal, as in ModelOpt.
inline std::string format_label(std::string const& name, double bits) {
  std::string number = detail::concat(bits);
  if (number.find('.') == std::string::npos) number += ".0";
  return name + "(effective-bits: " + number + ")";
}

}  // namespace mixbit
