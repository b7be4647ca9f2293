// Has a quantized module a form in a compressed-tensors checkpoint? Asked without data, as io/hf_form.hpp asks for
// ModelOpt's form, so that a host learns before it searches or calibrates which format has none, and for which layer:
//
//   mixbit::search<B> search{m, options};
//   mixbit::require_ct_forms(m, search);   // every format of every group that may be given it
//
// Contract: changes nothing and throws `format_value` with one line that names the format, the module and what has no
// place. What does not throw can be exported (io/ct_checkpoint.hpp) from a source that has these modules.
#pragma once

#include "mixbit/io/ct_form.hpp"
#include "mixbit/io/ct_kv_cache.hpp"
#include "mixbit/io/hf_form.hpp"

namespace mixbit {

namespace detail::ct {

struct compressed_forms {
  template <backend B>
  static auto of_cache(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    return ct_kv_form_of(module, recipe);
  }
  template <backend B>
  static auto of_weight(module_ref<B> const& module, recipe_quantizers<B>& recipe) {
    return ct_form_of(module, recipe);
  }
};

}  // namespace detail::ct

/// `what`: a config for quantize(), a search or a plan. A format that a plan gives to no layer does not matter.
template <backend B, class What>
void require_ct_forms(model<B>& m, What const& what) {
  detail::hf::require_forms<detail::ct::compressed_forms>(m, what);
}

}  // namespace mixbit
