#include "layer_form.hpp"

#include <string_view>

#include "gguf_layer.hpp"
#include "mixbit/io/ct_form.hpp"
#include "mixbit/io/hf_form.hpp"

namespace quantize_checkpoint {

using mixbit::error_id;
using mixbit::fail;

namespace {

using recipe_of_module = mixbit::recipe_quantizers<backend>;

void require_no_data(stored_layer const& m, std::string_view form, bool has_input_scale,
                     mixbit::tensor_quantizer<backend> const& weight) {
  if (has_input_scale)
    fail(error_id::format_value, m.name, ": ", form, " has a static scale of its inputs, which needs data that runs ",
         "through the model; take a weight-only format, or one whose inputs are quantized as they come");
  require_running_max(weight);
}

layer modelopt_layer(stored_layer const& m, recipe_of_module& recipe, std::string const& label) {
  auto const form = mixbit::hf_form_of(m, recipe);
  require_no_data(m, mixbit::name_of(form.format.algorithm), form.format.has_input_scale(), *form.weight);
  return {m.name, m.weight, {form.format, form.weight->attributes(), label}};
}

/// A weight does not change: what is dynamic for all of it at once keeps the scale of the first look.
mixbit::quantizer_attribute_config settled(mixbit::ct_scheme const& scheme, mixbit::quantizer_attribute_config how) {
  if (scheme.weight.strategy == mixbit::ct_strategy::tensor) how.type = mixbit::quantizer_type::static_type;
  return how;
}

layer compressed_layer(stored_layer const& m, recipe_of_module& recipe, std::string const& label) {
  auto const form = mixbit::ct_form_of(m, recipe);
  auto const& scheme = form.scheme;
  bool const has_input_scale = scheme.has_input_scale() || (scheme.is_nvfp4() && scheme.input);
  require_no_data(m, mixbit::name_of(scheme.format), has_input_scale, *form.weight);
  return {m.name, m.weight, {{}, settled(scheme, form.weight->attributes()), label, scheme}};
}

}  // namespace

layer layer_in_form(std::string const& to, stored_layer const& m, recipe_of_module& recipe, std::string const& label) {
  try {
    if (to == "gguf") return gguf_layer(m, recipe, label);
    return to == "compressed-tensors" ? compressed_layer(m, recipe, label) : modelopt_layer(m, recipe, label);
  } catch (mixbit::error const& e) {
    fail(e.id(), label, ": ", e.message());
  }
}

layer layer_under(std::string const& to, mixbit::model<backend>& model, stored_layer const& m,
                  mixbit::search_format const& format) {
  auto recipe = mixbit::search_recipe(model, format.config, m);
  return layer_in_form(to, m, recipe, format.label);
}

}  // namespace quantize_checkpoint
