// What every export asks of a module first.
#pragma once

#include "mixbit/model/module.hpp"

namespace mixbit::detail {

/// The recipe of a module, or null. Throws `state_folded` for a weight that is no longer what was trained, or
/// is compressed.
template <backend B>
recipe_quantizers<B>* exportable_recipe(module_ref<B> const& module) {
  auto& s = *module.slots->shared_site();
  if (s.folded)
    fail(error_id::state_folded, module.name, ": fold_weight has replaced this weight by its quantized values; ",
         "export before folding");
  s.refuse_packed("of which no checkpoint is made; export before compressing");
  return s.recipes.empty() ? nullptr : &s.quantizers();
}

}  // namespace mixbit::detail
