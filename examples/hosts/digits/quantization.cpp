#include "quantization.hpp"

#include "mixbit/config/json.hpp"
#include "mixbit/config/presets.hpp"

namespace digits {

mixbit::quantize_config int4_weight_only() {
  mixbit::quantizer_attribute_config blocks{.num_bits = 4}, channels{.num_bits = 4, .axis = 0};
  blocks.block_sizes = mixbit::block_config{{{-1, 16}}};
  return {.name = "INT4_B16_WEIGHT_ONLY",
          .entries = {{.quantizer_name = "*", .enable = false},
                      {.quantizer_name = "*weight_quantizer", .cfg = {{blocks}}},
                      {.quantizer_name = "*weight_quantizer",
                       .parent_class = "nn.Conv2d",
                       .cfg = {{channels}},
                       .origin = mixbit::entry_origin::preset}},  // a network without convolutions may use this, too
          .algorithm = "max"};
}

mixbit::quantize_config format_named(std::string const& name) {
  if (auto own = int4_weight_only(); name == own.name) return own;
  return mixbit::load_config(name);
}

std::vector<image_set> search_batches(image_set const& training) { return batches(training, 64, 8); }

mixbit::quantization_plan run_search(mixbit::search<backend>& search, network& net,
                                     std::vector<image_set> const& steps) {
  auto const count = static_cast<int>(steps.size());
  auto const batch = [&](int i) -> image_set const& { return steps[static_cast<std::size_t>(i)]; };
  search.run({.calibration = count,
              .scoring = count,
              .calibrate = [&](int i) { net.logits(batch(i).pixels); },
              .score = [&](int i) { forward_and_backward(net, batch(i)); },
              .progress = {}});
  auto const chosen = search.choose(search.options().target);
  search.apply(chosen);
  return search.plan(chosen);
}

}  // namespace digits
