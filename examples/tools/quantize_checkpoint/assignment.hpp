// Which layers of a checkpoint are quantized, and how: by one config, by a plan, or by the least weight error within a
// budget.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "mixbit/autoquant/plan.hpp"
#include "options.hpp"
#include "stored_model.hpp"
#include "weight_rows.hpp"

namespace quantize_checkpoint {

struct assignment {
  std::vector<layer> layers;  ///< by name
  std::optional<mixbit::quantization_plan> plan;  ///< of a choice under a budget
  std::vector<std::string> notes;
};

/// Told of the bytes of weights that were read to measure errors, of how many.
using measured = std::function<void(std::int64_t done, std::int64_t all)>;

/// Throws what is wrong with configs and plans, `format_value` for a format that needs data or has no form in what is
/// written, naming format and layer (of a choice under a budget only where no layer can have it), `config_no_match`
/// where nothing is quantized, and `file_content` for weights and activations.
assignment assign(options const& o, mixbit::hf_source const& source, stored_model& stored, device const& on,
                  measured const& progress);

}  // namespace quantize_checkpoint
