// Which recipes a GGUF file can hold of a checkpoint's matrices, and what they take in it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "mixbit/config/quantize_config.hpp"
#include "stored_model.hpp"
#include "weight_rows.hpp"

namespace quantize_checkpoint {

/// Throws `format_value` where no type of GGUF holds the recipe, or the matrix's rows are no whole blocks of it, naming
/// the layer. Of the scales of Q8_0 and Q4_0 the nearest float16 is taken.
layer gguf_layer(stored_layer const& m, mixbit::recipe_quantizers<backend>& recipe, std::string const& label);

/// What a layer takes in the file.
std::int64_t gguf_bits(layer const& l);

/// The config that gives every layer a type of GGUF by its name: "Q8_0", "Q4_0", "MXFP4" and "NVFP4".
std::optional<mixbit::quantize_config> gguf_config(std::string const& type);

}  // namespace quantize_checkpoint
