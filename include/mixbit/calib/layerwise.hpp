// Any algorithm, one layer after another: each layer is calibrated on what the layers before it make of the data once
// they are quantized, which is what it will see when all of them are.
//
// Layers come in the order in which a first run of the loop reaches them, then those that it does not reach. For each
// the algorithm runs as for a model of that layer alone, so the loop runs once for the order and, for each layer, as
// often as the algorithm runs it. Layers whose turn has not come compute unquantized.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/calib/max_algorithm.hpp"

namespace mixbit {

/// What must be the same for a kept state to be a layer's: a name and a text each.
using layer_identity = std::vector<std::pair<std::string, std::string>>;

/// A layer of a calibration that keeps each one's state.
struct kept_layer {
  std::string folder;  ///< the step's layerwise_checkpoint_dir
  std::size_t place;   ///< in the order of the calibration
  layer_identity identity;
};

/// Where a layer's state is kept when its turn is over: io/layer_checkpoints.hpp has files.
template <backend B>
struct layer_checkpoints {
  template <class Result>
  using call = std::function<Result(kept_layer const& kept, calibration<B> const&, calibrated_layer<B> const& layer)>;
  /// Asked before the layer is calibrated: what the calibration starts from.
  std::function<layer_identity(calibration<B> const&, algorithm_step const&, calibrated_layer<B> const&)> identify = {};
  call<bool> load = {};  ///< takes up what is held of a layer; false where nothing is
  call<void> save = {};
};

namespace detail {

/// A hook under which sites compute unquantized, and which notes in which order they are reached.
template <backend B>
class unquantized_pass final : public apply_hook<B> {
 public:
  explicit unquantized_pass(std::vector<std::shared_ptr<site<B>>> sites) : hooked_{std::move(sites), *this} {}

  /// From now on the site is no business of this pass.
  void release(site<B>& s) { hooked_.release(s); }
  std::vector<site<B> const*> const& reached() const { return reached_; }

  void on_apply(site<B>& s, workspace<B>& ws, operands o, erased_op& op, pending<B>*) override {
    s.run_unquantized(ws, o, op);
    note(s);
  }
  void on_tensor(site<B>& s, workspace<B>& ws, std::size_t index, tensor_ref x) override {
    if (auto const& q = s.quantizers().quantizers[index]; q.transforms()) q.transform(ws.device, x, x);
    note(s);
  }
  bool runs_active_recipe() const override { return false; }

 private:
  void note(site<B> const& s) {
    std::lock_guard const noting{mutex_};
    if (seen_.insert(&s).second) reached_.push_back(&s);
  }

  std::vector<site<B> const*> reached_;
  std::set<site<B> const*> seen_;
  std::mutex mutex_;
  hooked_sites<B> hooked_;
};

/// Layers with a quantizer that is on, those that were reached first.
template <backend B>
std::vector<calibrated_layer<B>> in_order(calibration<B> const& c, std::vector<site<B> const*> const& reached) {
  std::vector<calibrated_layer<B>> ordered;
  auto const add = [&](calibrated_layer<B> const& layer) {
    if (layer.where->recipes.empty()) return;
    for (auto const& q : layer.quantizers().quantizers)
      if (q.enabled()) return ordered.push_back(layer);
  };
  std::set<site<B> const*> const early{reached.begin(), reached.end()};
  for (auto const* s : reached)
    for (auto const& layer : c.layers)
      if (layer.where.get() == s) add(layer);
  for (auto const& layer : c.layers)
    if (!early.contains(layer.where.get())) add(layer);
  return ordered;
}

}  // namespace detail

/// Runs one step layer by layer. A layer that the algorithm refuses (`config_conflict`), or that no data reaches, is
/// calibrated by max, and a note says why; where it is so of all of them, the first reason is thrown. With a
/// layerwise_checkpoint_dir what it holds is not calibrated again, and each further layer that the algorithm took is
/// saved there.
template <backend B>
void calibrate_layerwise(calibration<B>& c, algorithm_step const& step, algorithm<B> const& run,
                         layer_checkpoints<B> const& checkpoints = {}) {
  std::string const folder = step.text("layerwise_checkpoint_dir");
  if (!folder.empty() && !(checkpoints.identify && checkpoints.load && checkpoints.save))
    fail(error_id::config_value, step.method, ".layerwise_checkpoint_dir: this model has nothing to write checkpoints ",
         "with; set model_options::checkpoints (io/layer_checkpoints.hpp)");
  detail::unquantized_pass<B> others{c.sites()};
  if (c.loop) c.run("layerwise calibration");
  std::exception_ptr refusal;
  bool taken = false;
  kept_layer kept{folder, 0, {}};
  for (auto const& layer : detail::in_order(c, others.reached())) {
    others.release(*layer.where);
    if (!folder.empty()) {
      kept.identity = checkpoints.identify(c, step, layer);
      if (checkpoints.load(kept, c, layer)) {
        ++kept.place;
        taken = true;
        continue;
      }
    }
    calibration<B> one{c};  // the same in all but its layers
    one.layers = {layer};
    one.notes.clear();
    bool refused = false;
    try {
      run(one, step);
      taken = true;
    } catch (error const& e) {
      // a layer that takes no part, or that no token reaches; the loop is there, it has run
      if (e.id() != error_id::config_conflict && e.id() != error_id::state_not_calibrated) throw;
      refused = true;
      if (!refusal) refusal = std::current_exception();
      c.notes.push_back(detail::concat("layerwise: ", layer.name(), " is calibrated by max: ", e.message()));
      calibrate_max(one);
    }
    layer.where->cache.valid = false;
    c.notes.insert(c.notes.end(), one.notes.begin(), one.notes.end());
    if (!folder.empty() && !refused) checkpoints.save(kept, c, layer);
    ++kept.place;
  }
  if (!taken && refusal) std::rethrow_exception(refusal);
}

}  // namespace mixbit
