// fixed_quantization_config of a search: which groups have it. Its entries see full names, so that it may leave layers
// unquantized; a plan knows no names, so beyond that it has to treat all alike.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"
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
        resolved_{resolve(detail::placements_of(m, all), config, false, m.options().classes)} {
    for (auto const& q : resolved_.quantizers) quantizers_.emplace(q.name, &q);
    for (auto const& module : searched) modules_.emplace(module.name, &module);
  }
  fixed_recipe(fixed_recipe const&) = delete;
  fixed_recipe& operator=(fixed_recipe const&) = delete;

  /// Does the config quantize the group? Throws `config_conflict` where it does so to a part of it, or gives a member
  /// by its name what others do not have.
  bool takes(group_stats const& g) {
    std::size_t off = 0;
    for (auto const& name : g.modules) {
      auto const weight = quantizers_.find(name + ".weight_quantizer");
      if (weight == quantizers_.end() || !weight->second->enabled()) ++off;
      else require_nameless(name);
    }
    if (off != 0 && off != g.modules.size())
      fail(error_id::config_conflict, "fixed_quantization_config ", config_.name, " quantizes ", g.modules.size() - off,
           " of the ", g.modules.size(), " layers of ", g.name, ", which share a recipe; put them into ",
           "module_search_spaces");
    return off == 0;
  }

 private:
  void require_nameless(std::string const& name) {
    for (auto const& q : search_recipe(model_, config_, *modules_.at(name)).quantizers)
      if (q.role() != quantizer_role::output && q.attributes() != quantizers_.at(q.path())->attributes)
        fail(error_id::config_conflict, "fixed_quantization_config ", config_.name, " gives ", q.path(),
             " by its name what others do not have; put ", name, " into module_search_spaces");
  }

  model<B>& model_;
  quantize_config const& config_;
  resolution resolved_;
  std::map<std::string_view, resolved_quantizer const*> quantizers_;  ///< of resolved_
  std::map<std::string_view, module_ref<B> const*> modules_;          ///< of what is searched
};

}  // namespace mixbit
