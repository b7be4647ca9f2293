// model: a host's model as the library sees it - its walk, its backend, its numerics and its module classes.
//
//   mixbit::model<mixbit::reference::scalar> m{net};          // net.walk(visit)
//   mixbit::quantize(m, mixbit::preset("INT8_DEFAULT_CFG"), [&] { run(net, calibration_batch); });
//
// The handle is cheap. Sites belong to the host's slots: they outlive the handle, and a second handle finds them.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "mixbit/calib/algorithm.hpp"
#include "mixbit/calib/calibrators.hpp"
#include "mixbit/calib/layerwise.hpp"
#include "mixbit/config/module_classes.hpp"
#include "mixbit/config/resolve.hpp"
#include "mixbit/model/module.hpp"
#include "mixbit/model/unseen.hpp"

namespace mixbit {

template <backend B>
struct model_options {
  B device{};
  numerics_options numerics = {};  ///< what fake quantization computes
  module_class_registry classes = default_module_classes();
  algorithm_registry<B> algorithms = default_algorithms<B>();  ///< what a config's "algorithm" may name
  any_linalg linalg = {};          ///< gptq and svdquant need one, AWQ is faster with one: eigen_linalg, say
  layer_checkpoints<B> checkpoints = {};  ///< of a layerwise calibration that is told where to keep them
  bool strict = true;              ///< is a user's entry that matches nothing an error, or a line in the plan?
  std::size_t scratch_limit = 0;   ///< bytes of scratch memory; 0: no limit
  calibrator_registry<B> calibrators = {};  ///< the library's own, and what the user adds
  unseen_quantizers unseen = {};            ///< what static quantizers without data become: by default an error
};

template <backend B>
class model {
 public:
  template <class Host>
    requires walkable<Host, B>
  explicit model(Host& host, model_options<B> options = {})
      : walk_{[&host](module_visitor<B> const& visit) { host.walk(visit); }},
        options_{std::move(options)},
        workspace_{std::make_shared<workspace<B>>(options_.device, options_.scratch_limit)} {}

  model_options<B> const& options() const { return options_; }
  mixbit::workspace<B>& scratch() { return *workspace_; }
  B& device() { return workspace_->device; }

  /// Walks the host. Every module has a site afterwards. Throws `state_duplicate` for a name or slots seen twice,
  /// `state_missing` for a module without slots, `tensor_layout` for a weight in memory that is not the backend's, and
  /// what the walk throws. Classes are looked up by the phases that
  /// need them.
  std::vector<module_ref<B>> modules() {
    std::vector<module_ref<B>> all;
    std::set<std::string> names;
    std::set<quantizer_slots<B> const*> seen;
    walk_([&](module_ref<B> m) {
      if (!names.insert(m.name).second) fail(error_id::state_duplicate, "two modules have the name '", m.name, "'");
      if (m.slots == nullptr) fail(error_id::state_missing, m.name, ": this module of the walk has no slots (null)");
      if (m.weight.data != nullptr && m.weight.where != B::place)
        fail(error_id::tensor_layout, m.name, ": its weight is in ", name_of(m.weight.where),
             " memory, and the backend computes in ", name_of(mixbit::device{B::place}), " memory");
      if (!seen.insert(m.slots).second)
        fail(error_id::state_duplicate, m.name, ": its slots belong to another module of the walk too");
      all.push_back(std::move(m));
    });
    for (auto& m : all) attach(m);
    return all;
  }

 private:
  void attach(module_ref<B>& m) {
    auto s = m.slots->shared_site();
    if (!s) {
      s = std::make_shared<site<B>>();
      m.slots->attach(s);
    }
    s->name = m.name;
    s->class_name = m.class_name;
    s->home = workspace_;
    if (s->packed() && m.weight.size() == 0) {  // given up: its geometry is left
      m.weight = {s->weight, nullptr};
      return;
    }
    if (s->layout == m.layout && same_view(s->weight, m.weight)) return;
    s->layout = m.layout;
    s->weight = m.weight;
    s->probed = false;  // of other axes: what the probe has shown, and the weight that was kept
    s->cache.valid = false;
  }

  std::function<void(module_visitor<B> const&)> walk_;
  model_options<B> options_;
  std::shared_ptr<mixbit::workspace<B>> workspace_;
};

/// The weight of a module as configs see it. Throws `tensor_layout`, naming the module, where its layout does not fit.
template <backend B>
tensor_ref canonical_weight(module_ref<B> const& m) {
  return detail::named(m.name, [&] { return weight_view(m.layout, m.weight); });
}

/// What the active recipe quantizes: the host's weight, or what an algorithm has put in its place.
template <backend B>
const_tensor_ref source_weight(module_ref<B> const& m) {
  auto const& s = *m.slots->shared_site();
  auto const* const held = s.rewritten(s.active);
  return held ? held->view() : const_tensor_ref{canonical_weight(m)};
}

}  // namespace mixbit

#if !defined(MIXBIT_SEPARATE_COMPILATION)
#include "mixbit/calib/default_algorithms.hpp"
#endif
