// Calibrators by name: those of the library, and the user's own beside them.
//
//   mixbit::model_options<B> options;
//   options.calibrators.add("mine", [](mixbit::calibrator_request const& r) {
//     r.config.allow({"factor"}, r.where);
//     return std::make_unique<my_calibrator<B>>(r.config.number("factor", 1.0));
//   });
//
// A config then says .calibrator = {"mine", {{"factor", 2.0}}}, or {"name": "mine", "factor": 2.0} in JSON.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "mixbit/config/calibrator_config.hpp"
#include "mixbit/quantizer/calibrator.hpp"

namespace mixbit {

/// What a calibrator is made for. Quantizers with equal configs that see the same data share one, made for the first of
/// them; of the numerics only the grouping is then alike.
struct calibrator_request {
  calibrator_config const& config;
  quantizer_numerics const& numerics;
  std::string const& where;  ///< the quantizer's full name, for messages
};

/// One of the library's own but for max; null for another name. Throws what is wrong with the quantizer's format. With
/// MIXBIT_SEPARATE_COMPILATION one source file includes calib/default_calibrators.hpp and instantiates it.
template <backend B>
std::unique_ptr<calibrator<B>> make_built_in_calibrator(calibrator_request const& r);

template <backend B>
class calibrator_registry {
 public:
  using pointer = std::unique_ptr<calibrator<B>>;
  using factory = std::function<pointer(calibrator_request const&)>;

  /// Throws `state_duplicate` for a name that is taken, and what is wrong with the name. The factory throws for what
  /// its calibrator cannot do; before a calibration it is asked for every quantizer, and the result thrown away.
  calibrator_registry& add(std::string name, factory make) {
    calibrator_config{name}.validate("calibrators.add");
    if (!make) fail(error_id::config_value, "calibrators.add: '", name, "' comes without a function that makes it");
    if (detail::find_calibrator(name) != nullptr || !own_.emplace(name, std::move(make)).second)
      fail(error_id::state_duplicate, "calibrators.add: there is a calibrator '", name, "' already");
    return *this;
  }

  /// The calibrator of one quantizer; null for "max". Throws `config_unknown_field` for a name that nobody registered,
  /// listing those that are known, and what the factory throws.
  pointer make(calibrator_request const& r) const {
    if (r.config.is_max()) return nullptr;
    if (auto built_in = make_built_in_calibrator<B>(r)) return built_in;
    auto const at = own_.find(r.config.name());
    if (at == own_.end())
      fail(error_id::config_unknown_field, r.where, ": no calibrator is named '", r.config.name(), "'; known are ",
           known());
    pointer made = at->second(r);
    if (!made)
      fail(error_id::config_value, r.where, ": what is registered as the calibrator '", r.config.name(), "' made none");
    return made;
  }

  /// "max, histogram, ..., mine"
  std::string known() const {
    std::string names;
    for (auto const name : built_in_calibrators()) names.append(names.empty() ? "" : ", ").append(name);
    for (auto const& [name, make] : own_) names.append(", ").append(name);
    return names;
  }

 private:
  std::map<std::string, factory, std::less<>> own_;
};

}  // namespace mixbit

#if !defined(MIXBIT_SEPARATE_COMPILATION)
#include "mixbit/calib/default_calibrators.hpp"
#endif
