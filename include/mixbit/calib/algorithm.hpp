// What a calibration algorithm is: a function that gives the quantizers of one recipe what they need before they can
// quantize - amax, pre_quant_scale, another weight.
//
//   mixbit::model_options<B> options;
//   options.algorithms.add("acme.shrink", [](mixbit::calibration<B>& c, mixbit::algorithm_step const& step) {
//     mixbit::calibrate_max(c);
//     for (auto& layer : c.layers) ...                              // step.number("factor"): a parameter of its own
//   });
//   quantize(m, config, loop);                                      // config.algorithm = "acme.shrink"
//
// Built-in ones are added the same way (calib/default_algorithms.hpp). They see layers through their sites, know no
// graph, and never write a host's weight: what stands for it is kept in the recipe (`recipe_quantizers::weight`), so
// recipes of a search do not disturb each other and a phase that throws leaves the model as it was.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/calib/calibrators.hpp"
#include "mixbit/config/algorithm_config.hpp"
#include "mixbit/core/linalg.hpp"
#include "mixbit/quantizer/site.hpp"

namespace mixbit {

/// A forward over calibration data, written by the host: any number of forward passes.
using forward_loop = std::function<void()>;

/// One layer as an algorithm sees it.
template <backend B>
struct calibrated_layer {
  std::shared_ptr<site<B>> where;
  const_tensor_ref weight;  ///< the host's, in PyTorch's axis order; no data where the walk gives none

  std::string const& name() const { return where->name; }
  /// What is quantized: the host's weight, or what an algorithm has put in its place.
  const_tensor_ref source() const {
    auto const* const held = where->rewritten(where->active);
    return held ? held->view() : weight;
  }
  /// Of the recipe that is calibrated.
  recipe_quantizers<B>& quantizers() const { return where->quantizers(); }
};

/// What an algorithm works on: a model's layers under the recipe that is active in each.
template <backend B>
struct calibration {
  std::vector<calibrated_layer<B>> layers;
  workspace<B>& home;
  numerics_options numerics;
  calibrator_registry<B> const& calibrators;
  forward_loop const& loop;    ///< may be empty: nothing but weights can then be looked at
  any_linalg linalg = {};      ///< of the model; an algorithm that needs it calls require_linalg first
  bool every_recipe = false;   ///< are all recipes calibrated, not the active ones alone? Max can do so in one pass
  bool ran = false;            ///< has the loop been run?
  std::vector<std::string> notes = {};
  /// What an algorithm has to look at once quantizers that saw no data are what model_options::unseen makes of them.
  std::vector<std::function<void(calibration&)>> at_end = {};

  std::vector<std::shared_ptr<site<B>>> sites() const {
    std::vector<std::shared_ptr<site<B>>> all;
    for (auto const& layer : layers) all.push_back(layer.where);
    return all;
  }
  /// Runs the loop, while the caller's hook is on the sites, and counts the tokens that it shows each of them. Throws
  /// `state_not_calibrated`, naming what for, where there is none.
  void run(std::string_view what_for) {
    if (!loop)
      fail(error_id::state_not_calibrated, what_for, " needs data: give a forward_loop that runs calibration batches");
    ran = true;
    for (auto const& layer : layers) layer.where->rows_shown = 0;
    loop();
    for (auto const& layer : layers) {
      if (input_channel_axis(layer.where->layout, 2) < 0) continue;  // a lookup, a module of single tensors
      for (auto& recipe : layer.where->recipes)
        recipe.tokens = std::max(recipe.tokens.value_or(0), layer.where->rows_shown.load());
    }
  }
};

namespace detail {

/// What an algorithm throws whose loop was run and showed it nothing. `what` follows their number.
[[noreturn]] inline void fail_unreached(std::string_view method, std::int64_t layers, std::string_view what) {
  fail(error_id::state_not_calibrated, method, ": the forward_loop was run and reached none of ", layers, what);
}

}  // namespace detail

template <backend B>
using algorithm = std::function<void(calibration<B>&, algorithm_step const&)>;

/// Algorithms by the method name that a config gives them.
template <backend B>
class algorithm_registry {
 public:
  /// Adds one. A user's own has a dot in its name ("acme.shrink"), by which a config knows that its parameters are not
  /// its business. Throws `state_duplicate` for a name that is taken.
  void add(std::string name, algorithm<B> run) {
    auto const [at, is_new] = known_.emplace(std::move(name), std::move(run));
    if (!is_new) fail(error_id::state_duplicate, "two calibration algorithms are named '", at->first, "'");
  }
  /// Throws `config_value` for a method that is not here, listing those that are.
  algorithm<B> const& find(std::string const& method, std::string_view where) const {
    if (auto const at = known_.find(method); at != known_.end()) return at->second;
    std::string names;
    for (auto const& [name, run] : known_) names += (names.empty() ? "" : ", ") + name;
    fail(error_id::config_value, where, ": no calibration algorithm '", method, "' is registered; there are ", names);
  }

 private:
  std::map<std::string, algorithm<B>> known_;
};

/// The library's own. Compiling them takes seconds: with MIXBIT_SEPARATE_COMPILATION one source file includes
/// calib/default_algorithms.hpp and instantiates this for its backend, and all others only call it.
template <backend B>
algorithm_registry<B> default_algorithms();

}  // namespace mixbit
