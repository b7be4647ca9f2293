// What a layer becomes in the form that is written: asked of that form alone, since what one of them has no place for
// another may take.
#pragma once

#include <string>

#include "mixbit/autoquant/plan.hpp"
#include "stored_model.hpp"
#include "weight_rows.hpp"

namespace quantize_checkpoint {

/// `to`: the form's name on the command line; `label`: what the user calls the recipe. Throws `format_value`, naming
/// label and layer, for what the form cannot hold, and for what it cannot have from the weights alone.
layer layer_in_form(std::string const& to, stored_layer const& m, mixbit::recipe_quantizers<backend>& recipe,
                    std::string const& label);

/// The same of what a format of a search makes of the layer.
layer layer_under(std::string const& to, mixbit::model<backend>& model, stored_layer const& m,
                  mixbit::search_format const& format);

}  // namespace quantize_checkpoint
