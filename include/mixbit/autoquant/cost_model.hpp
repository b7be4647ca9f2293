// What a module's weight costs under a recipe, in bits.
//
// exact:    the encoded weight's own size in the format's storage - payload, scales in the type written, padding - and
//           what its algorithm stores beside it (side_storage.hpp).
// modelopt: elements × nominal bits, ModelOpt's approximation, for comparison with its searches.
// What stays unquantized costs 16 bits an element (bfloat16) in both.
//
// A group's cost may count for a part only: the experts that a router skips cost no time (active_moe), and layers that
// are excluded cost nothing. The part is a fraction of two integers, so that sums stay exact (candidate_stats.hpp).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/config/wildcard.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/model/module.hpp"

namespace mixbit {

enum class cost_model : std::uint8_t { exact, modelopt };

constexpr std::string_view name_of(cost_model c) { return c == cost_model::exact ? "exact" : "modelopt"; }

/// Is it a part of a routed expert by its name (`...experts.3.up_proj`), and of no shared one? As ModelOpt has it.
inline bool is_routed_expert(std::string_view module) {
  if (module.find("shared_expert") != module.npos) return false;
  for (std::size_t at = module.find("experts"); at != module.npos; at = module.find("experts", at + 1)) {
    std::size_t const end = at + 7;
    if ((at == 0 || module[at - 1] == '.') && (end == module.size() || module[end] == '.')) return true;
  }
  return false;
}

/// A token runs through `top_k` of `num_experts` experts, so that part of their weights counts (ModelOpt's active_moe).
struct active_moe {
  std::int64_t top_k = 1, num_experts = 1;
  pattern experts = {[](std::string_view name) { return is_routed_expert(name); }, "routed experts"};

  /// Throws `config_value` unless 1 <= top_k <= num_experts <= 2^20.
  cost_weight weight() const {
    if (top_k < 1 || num_experts < top_k || num_experts > (1 << 20))
      fail(error_id::config_value, "active_moe: top_k ", top_k, " of num_experts ", num_experts,
           "; a token runs through 1 to all of at most 1048576 experts");
    std::int64_t const common = std::gcd(top_k, num_experts);
    return {top_k / common, num_experts / common};
  }
};

/// Bits an element that attributes stand for: effective_bits if given, else what num_bits says.
inline double nominal_bits(quantizer_attribute_config const& a) {
  if (a.effective_bits) return *a.effective_bits;
  return a.num_bits.is_name() ? 16.0 : a.num_bits.bits();
}

/// Of a quantizer: the narrowest of its members.
template <backend B>
double nominal_bits(sequential_quantizer<B> const& q) {
  double bits = 16;
  for (auto const& m : q.members()) bits = std::min(bits, nominal_bits(m.attributes()));
  return bits;
}

/// Nominal bits of a module's weight; of one without a weight quantizer, of what else it quantizes, the narrowest.
template <backend B>
double nominal_bits(recipe_quantizers<B>& q) {
  if (auto const* const weight = q.find(quantizer_role::weight)) return nominal_bits(*weight);
  double bits = 16;
  for (auto const& each : q.quantizers)
    if (each.role() == quantizer_role::tensor && each.enabled()) bits = std::min(bits, nominal_bits(each));
  return bits;
}

/// Bits that a tensor takes as an enabled quantizer holds it. For several members in order the first holds the codes,
/// and each its scales.
template <backend B>
std::int64_t stored_bits(sequential_quantizer<B> const& q, geometry const& tensor) {
  std::int64_t bits = 0;
  for (std::size_t i = 0; i < q.members().size(); ++i) {
    auto const& m = q.members()[i];
    storage_size const size = storage_size_of(m.numerics().how, tensor, m.grouping(tensor));
    bits += 8 * (size.scales + size.tensor + (i == 0 ? size.payload : 0));
  }
  return bits;
}

/// Bits that `weight` itself takes under these quantizers.
template <backend B>
std::int64_t cost_bits(cost_model model, recipe_quantizers<B>& q, const_tensor_ref weight) {
  auto const* const quantizer = q.find(quantizer_role::weight);
  if (quantizer == nullptr) return 16 * weight.size();
  if (model == cost_model::exact) return stored_bits(*quantizer, weight);
  return static_cast<std::int64_t>(std::ceil(static_cast<double>(weight.size()) * nominal_bits(q)));
}

/// "INT4_BLOCKWISE_WEIGHT_ONLY_CFG(effective-bits: 4.0)": a whole number keeps one decimal, as in ModelOpt.
inline std::string format_label(std::string const& name, double bits) {
  std::string number = detail::concat(bits);
  if (number.find('.') == std::string::npos) number += ".0";
  return name + "(effective-bits: " + number + ")";
}

}  // namespace mixbit
