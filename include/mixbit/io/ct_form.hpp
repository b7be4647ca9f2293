// Which form a quantized module has in a compressed-tensors checkpoint: its format and what the config says of its
// operands. compressed-tensors 0.20 and vLLM read these; shapes are of a linear weight [out, in].
//
//   format                weight                                 tensors                             inputs
//   int-quantized         int8, one scale or one an output       weight i8; weight_scale f32 [1]     int8, static or
//                         channel                                or [out,1]                          per token
//   float-quantized       E4M3, the same                         weight E4M3; the same               E4M3, static or
//                                                                                                    per token, or none
//                         E4M3, 2-D blocks                       weight_scale f32 [out/b,in/b]       E4M3, groups of
//                                                                                                    each row, or none
//   pack-quantized        int4 or int8: one scale, one an        weight_packed i32 [out,in·bits/32]  none
//                         output channel, or groups of the       weight_scale f32 [1], [out,1] or
//                         last axis                              [out,in/g]; weight_shape i64 [2]
//   nvfp4-pack-quantized  E2M1 in blocks of 16                   weight_packed u8 [out,in/2]         NVFP4 or none
//                                                                weight_scale E4M3 [out,in/16]
//                                                                weight_global_scale f32 [1]
//   mxfp4-pack-quantized  E2M1 in blocks of 32                   weight_packed u8 [out,in/2]         MXFP4 or none
//                                                                weight_scale u8 (E8M0) [out,in/32]
//   mxfp8-quantized       E4M3 in blocks of 32                   weight E4M3; the same               MXFP8 or none
//
// Static inputs add input_scale f32 [1]; NVFP4's add input_global_scale f32 [1]. Groups and blocks of the last axis are
// whole ones. Everything else is refused by name.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "mixbit/io/hf_format.hpp"
#include "mixbit/io/hf_operand.hpp"
#include "mixbit/model/module.hpp"

namespace mixbit {

enum class ct_format : std::uint8_t {
  int_quantized, float_quantized, pack_quantized, nvfp4_pack_quantized, mxfp4_pack_quantized, mxfp8_quantized
};

constexpr std::string_view name_of(ct_format f) {
  constexpr std::string_view names[] = {"int-quantized",        "float-quantized",      "pack-quantized",
                                        "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"};
  return names[static_cast<int>(f)];
}

enum class ct_strategy : std::uint8_t { tensor, channel, token, group, tensor_group, block };

constexpr std::string_view name_of(ct_strategy s) {
  constexpr std::string_view names[] = {"tensor", "channel", "token", "group", "tensor_group", "block"};
  return names[static_cast<int>(s)];
}

/// What a config says of one operand.
struct ct_operand {
  int bits = 8;
  bool is_float = false;
  ct_strategy strategy = ct_strategy::tensor;
  std::int64_t rows = 0, columns = 0;  ///< of a block; a group has columns alone
  bool from_data = false;              ///< of inputs: scales are those of each call
  scale_rule scaling = scale_rule::ratio;
  friend bool operator==(ct_operand const&, ct_operand const&) = default;
};

/// What one module is in a file.
struct ct_scheme {
  ct_format format = ct_format::int_quantized;
  ct_operand weight;
  std::optional<ct_operand> input;
  friend bool operator==(ct_scheme const&, ct_scheme const&) = default;

  bool has_input_scale() const { return input && input->strategy == ct_strategy::tensor; }
  bool is_nvfp4() const { return format == ct_format::nvfp4_pack_quantized; }
  bool is_mx() const { return format == ct_format::mxfp4_pack_quantized || format == ct_format::mxfp8_quantized; }
};

namespace detail::ct {

/// int4, int8 and E4M3 whose scales are as they are.
inline bool is_plain(quantizer_numerics const& n) { return hf::is_int(n, 4) || hf::is_int(n, 8) || hf::is_e4m3(n); }

/// The formats whose scales are quantized themselves, of weights and, `from_data`, of inputs.
inline std::optional<ct_operand> scaled_blocks(quantizer_numerics const& n, std::int64_t size, bool from_data) {
  auto const element = n.how.element;
  if (element != e2m1_element && element != e4m3_element) return std::nullopt;
  int const bits = element == e2m1_element ? 4 : 8;
  if (is_two_level(n.how.scaling) && size == 16)
    return ct_operand{bits, true, ct_strategy::tensor_group, 0, size, from_data, n.how.scaling};
  if (is_mx(n.how.scaling) && size == 32)
    return ct_operand{bits, true, ct_strategy::group, 0, size, from_data, scale_rule::mx_nv};
  return std::nullopt;
}

/// Of a weight of two axes.
inline std::optional<ct_operand> weight_operand(quantizer_numerics const& n) {
  auto const group = hf::last_blocks(n, 2, 1);
  if (group && n.how.scaling != scale_rule::ratio) return scaled_blocks(n, *group, false);
  if (!is_plain(n)) return std::nullopt;
  ct_operand o{n.how.element.bits, hf::is_e4m3(n)};
  if (n.grouping.what == hf::kind::tensor) return o;
  if (hf::is_per_channel(n, 2)) {
    o.strategy = ct_strategy::channel;
  } else if (group && !o.is_float) {
    o.strategy = ct_strategy::group;
    o.columns = *group;
  } else if (hf::last_blocks(n, 2, 2) && o.is_float) {
    o.strategy = ct_strategy::block;
    for (auto const& b : n.grouping.blocks) (b.axis == -1 || b.axis == 1 ? o.columns : o.rows) = *b.size;
  } else {
    return std::nullopt;
  }
  return o;
}

inline std::optional<ct_operand> input_operand(quantizer_numerics const& n) {
  auto const& b = n.grouping.blocks;
  bool const blocked = n.grouping.what == hf::kind::blocks && b.size() == 1 && b[0].axis == -1 && b[0].size;
  if (n.how.scaling != scale_rule::ratio) {
    bool const has_scale = !is_two_level(n.how.scaling) || (n.groups_from_data && n.amax_from != amax_source::data);
    return blocked && has_scale ? scaled_blocks(n, *b[0].size, true) : std::nullopt;
  }
  if (!is_plain(n)) return std::nullopt;
  ct_operand o{n.how.element.bits, hf::is_e4m3(n)};
  if (hf::is_per_tensor_static(n)) return o;
  o.from_data = true;
  o.strategy = hf::is_per_token(n) ? ct_strategy::token : ct_strategy::group;
  o.columns = blocked ? *b[0].size : 0;
  bool const grouped = blocked && n.amax_from == amax_source::data;
  return o.strategy == ct_strategy::token || grouped ? std::optional{o} : std::nullopt;
}

/// May inputs be quantized so beside such weights?
inline bool go_together(ct_operand const& weight, ct_operand const& input) {
  if (weight.scaling != scale_rule::ratio)
    return is_mx(input.scaling) == is_mx(weight.scaling) && input.bits == weight.bits &&
           input.strategy == weight.strategy && input.columns == weight.columns;
  bool const alike = input.scaling == scale_rule::ratio && input.is_float == weight.is_float && weight.bits == 8 &&
                     input.bits == 8;
  bool const grouped = input.strategy == ct_strategy::group;
  return alike && weight.strategy != ct_strategy::group && grouped == (weight.strategy == ct_strategy::block);
}

inline ct_format format_of(ct_operand const& weight, bool with_input) {
  if (is_two_level(weight.scaling)) return ct_format::nvfp4_pack_quantized;
  if (weight.scaling != scale_rule::ratio)
    return weight.bits == 4 ? ct_format::mxfp4_pack_quantized : ct_format::mxfp8_quantized;
  if (weight.is_float) return ct_format::float_quantized;
  return with_input ? ct_format::int_quantized : ct_format::pack_quantized;
}

}  // namespace detail::ct

/// The form of a weight of two axes with these quantizers, if there is one.
inline std::optional<ct_scheme> ct_scheme_of(hf_operand const& weight, hf_operand const& input) {
  if (weight.size() != 1 || input.size() > 1) return std::nullopt;
  auto const of_weight = detail::ct::weight_operand(weight.front());
  if (!of_weight) return std::nullopt;
  if (input.empty()) return ct_scheme{detail::ct::format_of(*of_weight, false), *of_weight, std::nullopt};
  auto const of_input = detail::ct::input_operand(input.front());
  if (!of_input || !detail::ct::go_together(*of_weight, *of_input)) return std::nullopt;
  return ct_scheme{detail::ct::format_of(*of_weight, true), *of_weight, of_input};
}

/// The form of one module, and the quantizers that make it; `input` is null where inputs are not quantized.
template <backend B>
struct ct_module_form {
  ct_scheme scheme;
  tensor_quantizer<B>*weight = nullptr, *input = nullptr;
};

namespace detail::ct {

/// `taken`: the caller has a form for what it quantizes.
template <backend B>
void refuse_what_has_no_place(sequential_quantizer<B> const& q, bool taken) {
  auto const refuse = [&](auto const&... what) {
    fail(error_id::format_value, q.path(), ": compressed-tensors has no ", what...);
  };
  if (q.has_pre_quant_scale()) refuse("place for a pre_quant_scale; fold it (fold_pre_quant_scales) or take it off");
  if (q.transforms()) refuse("form in this version for a rotation");
  if (!q.enabled()) return;
  if (!taken)
    refuse("form in this version for this quantizer: it holds weights, inputs and key/value caches; disable it to ",
           "export");
  for (auto const& m : q.members())
    if (m.numerics().rotate || m.numerics().bias) refuse("form in this version for a rotation or a bias");
}

/// Whole groups along the last axis: the package refuses others.
inline void require_whole_groups(std::string const& module, ct_scheme const& s, geometry const& weight) {
  auto const& w = s.weight;
  if (w.strategy != ct_strategy::group && w.strategy != ct_strategy::tensor_group) return;
  if (weight.shape[1] % w.columns != 0)
    fail(error_id::format_value, module, ": rows of ", weight.shape[1], " elements are no whole groups of ", w.columns,
         ", and compressed-tensors takes whole ones");
}

}  // namespace detail::ct

/// The form of a module under a recipe that has a quantizer on. Throws `format_value` where there is none.
template <backend B>
ct_module_form<B> ct_form_of(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
  for (auto const& q : recipe.quantizers)
    detail::ct::refuse_what_has_no_place(
        q, q.role() == quantizer_role::weight || q.role() == quantizer_role::input);
  if (recipe.branch)
    fail(error_id::format_value, module.name, ": svdquant computes a branch beside this weight, and ",
         "compressed-tensors has no place for it");
  auto* const weight = recipe.find(quantizer_role::weight);
  auto* const input = recipe.find(quantizer_role::input);
  hf_operand const w = detail::hf::operand_of(weight), in = detail::hf::operand_of(input);
  bool const is_matrix = module.weight.data != nullptr && module.layout.weight.apply(module.weight).rank == 2;
  if (!w.empty() && !is_matrix)
    fail(error_id::format_value, module.name, ": its weight is no matrix, and compressed-tensors holds matrices");
  auto const scheme = ct_scheme_of(w, in);
  if (!scheme)
    fail(error_id::format_value, module.name, ": compressed-tensors has no form in this version for weight ",
         detail::hf::describe(w), " with input ", detail::hf::describe(in), "; it has for int8 and E4M3 per tensor ",
         "and per channel, E4M3 in 2-D blocks, inputs alike, static or per token; int4 and int8 in groups of the last ",
         "axis, and NVFP4, MXFP4 and MXFP8");
  detail::ct::require_whole_groups(module.name, *scheme, canonical_weight(module));
  return {*scheme, &weight->members().front(), in.empty() ? nullptr : &input->members().front()};
}

}  // namespace mixbit
