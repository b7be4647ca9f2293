#include "mixbit/config/json.hpp"

#include "fuzz/target.hpp"
#include "mixbit/config/resolve.hpp"

namespace {

using namespace mixbit;

/// A config that is taken says the same once it is written and read, and may be put on a layer.
fuzz::target const quantize_config_text{"config", fuzz::kind::json, [](fuzz::bytes input) {
  auto const read = config_from_json(fuzz::text_of(input), "it");
  if (!same_content(config_from_json(config_to_text(read), "written"), read)) std::abort();
  module_quantizers const layer = default_module_classes().module("layer", "nn.Linear");
  apply_entries(std::span{&layer, 1}, read);
}};

}  // namespace
