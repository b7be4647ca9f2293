// What a run reads beside the model: the windows of a text, formats, a plan.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config.hpp"
#include "mixbit/autoquant/latency_table.hpp"
#include "mixbit/autoquant/plan.hpp"
#include "mixbit/autoquant/search_checkpoint.hpp"
#include "mixbit/config/quantize_config.hpp"
#include "options.hpp"
#include "tokens.hpp"

namespace byte_lm {

/// Windows as bytes, one inner list a step.
struct data_windows {
  std::vector<byte_windows> calibration, score;
  byte_windows validation;
};

/// As --text and --windows say, else evenly over Debian's licences. Throws `file_open`, `file_format` or
/// `file_content`, naming file and field.
data_windows read_data(options const& o, config const& shapes);

/// Presets by their names, or configs by their files: the first, followed by the entries of the others.
mixbit::quantize_config read_combined(std::vector<std::string> const& formats);

/// Those of --formats: one of them each, or "all-layers:" and one of them, which is then named CUSTOM_0, CUSTOM_1, ...
std::vector<mixbit::quantize_config> read_formats(std::vector<std::string> const& names);

/// --algorithm: a name, or JSON. Throws config_* errors that name the option.
mixbit::algorithm_config algorithm_of(std::string const& text);

/// --latency: mixbit/io/latency_file.hpp.
mixbit::latency_table read_latency(std::string const& path);

mixbit::quantization_plan read_plan(std::string const& path);

struct named_values {
  std::string name;
  std::span<float const> values;
};

/// --checkpoint: a folder that knows these windows and all of this model. Null where the option is not given.
std::shared_ptr<mixbit::search_checkpoint> search_checkpoint(options const& o, std::vector<named_values> const& weights,
                                                             std::vector<byte_windows> const& calibration,
                                                             std::vector<byte_windows> const& score);

}  // namespace byte_lm
