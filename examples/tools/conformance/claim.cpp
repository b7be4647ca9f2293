#include "claim.hpp"

#include <charconv>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "mixbit/config/json.hpp"
#include "mixbit/config/resolve.hpp"
#include "mixbit/io/json.hpp"

namespace conformance {
namespace {

using namespace mixbit;

struct named_format {
  std::string_view name;
  element_type element;
  scale_rule scaling;
  int block;  ///< 0: one group for the tensor
  bool dynamic;
};

constexpr named_format known_formats[] = {
    {"FP8", e4m3_element, scale_rule::ratio, 0, false},
    {"FP8_E5M2", e5m2_element, scale_rule::ratio, 0, false},
    {"FP6_E3M2", e3m2_element, scale_rule::ratio, 0, false},
    {"FP6_E2M3", e2m3_element, scale_rule::ratio, 0, false},
    {"FP5_E2M2", e2m2_element, scale_rule::ratio, 0, false},
    {"FP5_E3M1", e3m1_element, scale_rule::ratio, 0, false},
    {"FP4", e2m1_element, scale_rule::ratio, 0, false},
    {"NF4", nf4_element, scale_rule::ratio, 64, false},
    {"MXFP8", e4m3_element, scale_rule::mx_nv, 32, true},
    {"MXFP8_E5M2", e5m2_element, scale_rule::mx_nv, 32, true},
    {"MXFP6", e3m2_element, scale_rule::mx_nv, 32, true},
    {"MXFP6_E2M3", e2m3_element, scale_rule::mx_nv, 32, true},
    {"MXFP4", e2m1_element, scale_rule::mx_nv, 32, true},
    {"MXINT8", integer_element(8), scale_rule::mx_nv, 32, true},
    {"NVFP4", e2m1_element, scale_rule::two_level, 16, true},
    {"NVFP4_STATIC", e2m1_element, scale_rule::two_level, 16, false},
    {"NVFP4_FOUR_OVER_SIX", e2m1_element, scale_rule::four_over_six, 16, false},
};

quantizer_numerics numerics_of(named_format const& f) {
  quantizer_numerics n;
  n.how.element = f.element;
  n.how.scaling = f.scaling;
  n.how.scale_type = is_mx(f.scaling) ? dtype::f8_e8m0 : is_two_level(f.scaling) ? dtype::f8_e4m3 : dtype::f32;
  n.how.layout = formats::storage_packing(f.element);
  n.groups_from_data = f.dynamic;
  if (f.block > 0) n.grouping = {grouping_scheme::kind::blocks, {}, {{-1, f.block}}};
  return n;
}

/// INT8, UINT3.
std::optional<named_format> integer_named(std::string_view name) {
  bool const is_unsigned = name.starts_with("UINT");
  if (!is_unsigned && !name.starts_with("INT")) return std::nullopt;
  name.remove_prefix(is_unsigned ? 4 : 3);
  int bits = 0;
  auto const [end, code] = std::from_chars(name.data(), name.data() + name.size(), bits);
  bool const known = code == std::errc{} && end == name.data() + name.size() && bits >= (is_unsigned ? 1 : 2) &&
                     (bits <= 8 || bits == 16);
  if (!known) return std::nullopt;
  return named_format{"", integer_element(bits, is_unsigned), scale_rule::ratio, 0, false};
}

/// The attributes that a config gives a quantizer of a linear layer.
quantizer_attribute_config attributes_in(quantize_config const& config, options const& o) {
  module_quantizers const layer = default_module_classes().module("layer", "nn.Linear");
  auto const resolved = apply_entries(std::span{&layer, 1}, config);
  auto const* const found = resolved.find("layer." + o.quantizer);
  if (!found)
    fail(error_id::usage, "--quantizer '", o.quantizer,
         "' is none of weight_quantizer, input_quantizer, output_quantizer; see conformance --help");
  if (!found->enabled())
    fail(error_id::usage, "--format '", o.format, "' leaves the ", o.quantizer, " off; choose another --quantizer");
  if (found->attributes.size() != 1)
    fail(error_id::usage, "--format '", o.format, "' quantizes the ", o.quantizer, " ", found->attributes.size(),
         " times in sequence; compare one step at a time");
  return found->attributes.front();
}

quantizer_attribute_config attributes_of(options const& o) {
  if (!preset_full_name(o.format).empty()) return attributes_in(preset(o.format), o);
  if (!o.format.ends_with(".json") && !std::filesystem::exists(o.format)) {
    std::vector<std::string_view> names{preset_names().begin(), preset_names().end()};
    for (auto const& f : known_formats) names.push_back(f.name);
    fail(error_id::usage, "--format '", o.format, "' is neither a format, nor a preset, nor a file",
         close_names(o.format, names));
  }
  json_document const document = read_json_file(o.format);
  if (document.is_object() && !document.contains("quant_cfg")) return attributes_from_json(document, o.format);
  return attributes_in(config_from_file(o.format), o);
}

quantizer_numerics numerics_named(options const& o) {
  if (auto const integer = integer_named(o.format)) return numerics_of(*integer);
  for (auto const& f : known_formats)
    if (f.name == o.format) return numerics_of(f);
  return interpret(attributes_of(o), {}, o.format);
}

}  // namespace

claim claim_of(options const& o) {
  claim c{numerics_named(o)};
  format& how = c.numerics.how;
  if (o.policy) how.numerics = *o.policy;
  if (o.layout) how.layout = *o.layout;
  if (o.mx && !is_mx(how.scaling)) fail(error_id::usage, "--mx belongs to MX formats, not to ", o.format);
  if (o.mx) how.scaling = *o.mx;
  if (o.scale_type && how.scaling != scale_rule::ratio)
    fail(error_id::usage, "--scale-type belongs to formats whose scales are ratios, not to ", o.format);
  if (o.scale_type) how.scale_type = *o.scale_type;
  if (o.axis) c.numerics.grouping = {grouping_scheme::kind::axes, {*o.axis}, {}};
  if (o.block) c.numerics.grouping = {grouping_scheme::kind::blocks, {}, {{-1, *o.block}}};
  check_format(how, o.format);
  return c;
}

}  // namespace conformance
