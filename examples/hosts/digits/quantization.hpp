// What this host does with mixbit: a config of its own, the search, and the files that come out.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "mixbit/autoquant/search.hpp"
#include "training.hpp"

namespace digits {

using quantized_model = mixbit::model<backend>;

/// INT4 weights. Linear layers have a scale for 16 inputs. A convolution has one for each output channel: blocks along
/// the last axis of a 3×3 kernel would be 3 wide, and a scale for 3 weights costs more than the weights.
mixbit::quantize_config int4_weight_only();

/// That config by its name, a preset, or a JSON file; what is wrong with a file is said with its path.
mixbit::quantize_config format_named(std::string const& name);

/// The batches that calibrate and that are scored: the first training images.
std::vector<image_set> search_batches(image_set const& training);

/// Calibrates all formats, scores them by gradients, and applies the best choice within the search's target.
mixbit::quantization_plan run_search(mixbit::search<backend>& search, network& net,
                                     std::vector<image_set> const& steps);

/// Throws where a format of the search makes weights that write_checkpoint has no form for: found before training.
void require_forms(quantized_model& model, mixbit::search<backend> const& search);

/// Writes the network: `NAME.weight` in codes with `NAME.weight_scale` and, where inputs have a fixed one,
/// `NAME.input_scale`; float32 for what is not quantized. A scale tensor has an element for each group along each axis
/// of its weight: value = code * scale. The metadata says each weight's element type; int4 holds rows 2i and 2i+1 of
/// axis 0 in the low and high nibble.
/// Throws what require_forms throws. Both are in checkpoint.cpp.
void write_checkpoint(std::filesystem::path const& path, quantized_model& model, network& net);

}  // namespace digits
