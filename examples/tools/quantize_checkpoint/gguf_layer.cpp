#include "gguf_layer.hpp"

#include <string_view>
#include <utility>

#include "mixbit/config/presets.hpp"
#include "mixbit/io/gguf_form.hpp"

namespace quantize_checkpoint {

namespace {

using mixbit::quantizer_type;

/// A type's weight quantizer, and the bits that its blocks take an element.
struct named_type {
  mixbit::gguf_type type;
  mixbit::bit_spec bits;
  int block;
  std::optional<mixbit::bit_spec> scale_bits;
};

mixbit::quantizer_attribute_config attributes_of(named_type const& t) {
  auto const info = mixbit::gguf_info(t.type);
  mixbit::quantizer_attribute_config a;
  a.num_bits = t.bits;
  a.block_sizes = mixbit::block_config{{{-1, t.block}}};
  if (t.scale_bits) a.block_sizes->type = quantizer_type::dynamic_type;
  a.block_sizes->scale_bits = t.scale_bits;
  a.effective_bits = 8.0 * static_cast<double>(info.bytes) / static_cast<double>(info.block);
  return a;
}

/// An amax that is given is not rounded to one that the type has.
void require_half_scale(mixbit::tensor_quantizer<backend> const& weight, mixbit::gguf_type type) {
  auto const& how = weight.numerics();
  if (how.amax_from != mixbit::amax_source::constant || !mixbit::has_half_scales(type)) return;
  if (float const held = mixbit::half_scale_amax(type, how.constant_amax); held != how.constant_amax)
    mixbit::fail(mixbit::error_id::format_value, weight.name(), ": constant_amax ", how.constant_amax,
                 " has a scale that float16 does not hold, and ", mixbit::gguf_info(type).name,
                 " has float16 scales; the nearest amax that has one is ", held);
}

}  // namespace

layer gguf_layer(stored_layer const& m, mixbit::recipe_quantizers<backend>& recipe, std::string const& label) {
  mixbit::detail::gguf::module_form<backend> const form{m, recipe};
  mixbit::detail::gguf::require_whole_blocks(m.name, form.type, m.weight.shape[1]);
  require_running_max(*form.weight);
  require_half_scale(*form.weight, form.type);
  return {m.name, m.weight, {{}, form.weight->attributes(), label, {}, form.type}};
}

std::int64_t gguf_bits(layer const& l) {
  std::int64_t const scale = l.how->is_nvfp4() ? sizeof(float) : 0;
  return 8 * (mixbit::gguf_tensor{l.name, *l.how->gguf, l.weight}.bytes() + scale);
}

std::optional<mixbit::quantize_config> gguf_config(std::string const& type) {
  named_type const types[] = {{mixbit::gguf_type::q8_0, 8, 32, {}},
                              {mixbit::gguf_type::q4_0, 4, 32, {}},
                              {mixbit::gguf_type::mxfp4, {2, 1}, 32, mixbit::bit_spec{8, 0}},
                              {mixbit::gguf_type::nvfp4, {2, 1}, 16, mixbit::bit_spec{4, 3}}};
  for (auto const& t : types) {
    if (type != mixbit::gguf_info(t.type).name) continue;
    auto config = mixbit::preset("INT8_WEIGHT_ONLY_CFG");
    config.name = type;
    for (auto& entry : config.entries)
      if (entry.cfg) entry.cfg = std::vector{attributes_of(t)};
    return config;
  }
  return std::nullopt;
}

}  // namespace quantize_checkpoint
