// fixed_quantization_config of a search: which groups have it. Its entries see full names, so that it may leave layers
// unquantized; a plan knows no names, so beyond that it has to treat all alike.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/core/name_index.hpp"
#include "mixbit/model/quantize.hpp"

namespace mixbit {

template <backend B>
class fixed_recipe {
 public:
  /// Throws what resolving the config throws. The modules and the config are looked at as long as this lives.
  fixed_recipe(model<B>& m, std::vector<module_ref<B>> const& all, std::vector<module_ref<B>> const& searched,
               quantize_config const& config)
      : model_{m},
        config_{config},
        searched_{searched},
        resolved_{resolve(detail::placements_of(m, all), config, false, m.options().classes)} {
    for (std::size_t i = 0; i < resolved_.quantizers.size(); ++i) quantizers_.add(resolved_.quantizers[i].name, i);
    for (std::size_t i = 0; i < searched.size(); ++i) modules_.add(searched[i].name, i);
  }
  fixed_recipe(fixed_recipe const&) = delete;
  fixed_recipe& operator=(fixed_recipe const&) = delete;

  /// Does the config quantize the group? Throws `config_conflict` where it does so to a part of it, or gives a member
  /// by its name what others do not have.
  bool takes(group_stats const& g) {
    std::size_t off = 0;
    for (auto const& name : g.modules) {
      auto const* const weight = quantizer(name + ".weight_quantizer");
      if (weight == nullptr || !weight->enabled()) ++off;
      else require_nameless(name);
    }
    if (off != 0 && off != g.modules.size())
      fail(error_id::config_conflict, "fixed_quantization_config ", config_.name, " quantizes ", g.modules.size() - off,
           " of the ", g.modules.size(), " layers of ", g.name, ", which share a recipe; put them into ",
           "module_search_spaces");
    return off == 0;
  }

 private:
  /// As the config has it among all modules; null where there is none of that name.
  resolved_quantizer const* quantizer(std::string_view name) const {
    std::size_t const i = quantizers_.find(name);
    return i == detail::name_index::none ? nullptr : &resolved_.quantizers[i];
  }

  /// `name`: of what is searched, so that the config has its quantizers too.
  void require_nameless(std::string const& name) {
    for (auto const& q : search_recipe(model_, config_, searched_[modules_.find(name)]).quantizers)
      if (q.role() != quantizer_role::output && q.attributes() != quantizer(q.path())->attributes)
        fail(error_id::config_conflict, "fixed_quantization_config ", config_.name, " gives ", q.path(),
             " by its name what others do not have; put ", name, " into module_search_spaces");
  }

  model<B>& model_;
  quantize_config const& config_;
  std::vector<module_ref<B>> const& searched_;
  resolution resolved_;
  detail::name_index quantizers_;  ///< of resolved_
  detail::name_index modules_;     ///< of searched_
};

}  // namespace mixbit
