// What a layer becomes in the form that is written: asked of that form alone, since what one of them has no place for
// another may take.
#pragma once

#include <string>

#include "stored_model.hpp"
#include "weight_rows.hpp"

namespace quantize_checkpoint {

/// `to`: the form's name on the command line; `label`: what the user calls the recipe. Throws `format_value`, naming
/// label and layer, for what the form cannot hold, and for what it cannot have from the weights alone.
layer layer_in_form(std::string const& to, mixbit::module_ref<backend> const& m,
                    mixbit::recipe_quantizers<backend>& recipe, std::string const& label);

}  // namespace quantize_checkpoint
