// How a quantizer finds its amax while it is calibrated, as data: a calibrator's name and its parameters.
//
//   .calibrator = "max"                                                  the largest |x|
//   .calibrator = {"histogram", {{"method", "percentile"}, {"percentile", 99.9}}}
//   .calibrator = {"mine", {{"factor", 2.0}}}                            registered by the user (calib/calibrators.hpp)
//
// In JSON "max", "histogram", or {"name": "histogram", "method": "percentile", "percentile": 99.9}. ModelOpt takes the
// two texts alone; its constructors of Python classes mean nothing here. What the calibrators do is calib's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mixbit/config/algorithm_config.hpp"
#include "mixbit/config/closest.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/span_of.hpp"

namespace mixbit {

using calibrator_parameters = std::vector<std::pair<std::string, algorithm_value>>;

namespace detail {

inline constexpr double most_histogram_bins = 1 << 20;

inline constexpr parameter_rule histogram_rules[] = {
    {"method", parameter_kind::text, 0},
    {"bins", parameter_kind::integer, 2048, 128, most_histogram_bins},
    {"percentile", parameter_kind::number, 99.99, 0, 100, true},
};
inline constexpr parameter_rule headroom_rules[] = {
    {"rho", parameter_kind::number, 16384, 0, 28672, true, true},  // 28672: the range of E4M3's normal numbers
    {"anchor", parameter_kind::number, 1, 0, 100, true},
    {"upper", parameter_kind::number, 99.99, 0, 100, true},
};

inline constexpr method_rule calibrator_rules[] = {
    {"max", {}},
    {"histogram", histogram_rules},
    {"nvfp4_act_headroom", headroom_rules},
};
inline constexpr std::string_view histogram_methods[] = {"entropy", "mse", "percentile"};

inline method_rule const* find_calibrator(std::string_view name) {
  for (method_rule const& rule : calibrator_rules)
    if (rule.name == name) return &rule;
  return nullptr;
}
inline bool is_histogram_method(std::string_view name) {
  return std::find(std::begin(histogram_methods), std::end(histogram_methods), name) != std::end(histogram_methods);
}

}  // namespace detail

/// The library's own calibrators, in the order of the documentation.
inline std::vector<std::string_view> built_in_calibrators() {
  std::vector<std::string_view> names;
  for (auto const& rule : detail::calibrator_rules) names.push_back(rule.name);
  return names;
}

/// A value. It holds one pointer, null for "max": attributes are copied in many places, and hardly any say another.
class calibrator_config {
 public:
  calibrator_config() = default;
  calibrator_config(char const* name) : calibrator_config{std::string{name}} {}    // NOLINT: calibrator = "max"
  calibrator_config(std::string name) : calibrator_config{std::move(name), {}} {}  // NOLINT
  calibrator_config(std::string name, calibrator_parameters parameters) {
    if (name != "max" || !parameters.empty())
      said_ = std::make_shared<contents const>(contents{std::move(name), std::move(parameters)});
  }

  std::string const& name() const { return what().name; }
  calibrator_parameters const& parameters() const { return what().parameters; }
  bool is_max() const { return said_ == nullptr || said_->name == "max"; }

  /// Throws `error` (config_unknown_field, config_value, config_conflict) that names `where`, parameter and value. Of a
  /// name that is none of the built-in ones nothing is known here: what registered it looks at its parameters.
  void validate(std::string const& where) const {
    if (name().empty()) fail(error_id::config_value, where, ".name: is empty");
    if (detail::is_histogram_method(name()))
      fail(error_id::config_value, where, ": '", name(), "' is a method of the histogram calibrator: {\"name\": ",
           "\"histogram\", \"method\": \"", name(), "\"}");
    for (std::size_t i = 0; i < parameters().size(); ++i)
      for (std::size_t k = 0; k < i; ++k)
        if (parameters()[k].first == parameters()[i].first)
          fail(error_id::config_conflict, where, '.', parameters()[i].first, ": is given twice");
    detail::method_rule const* const rule = detail::find_calibrator(name());
    if (rule == nullptr) return;
    for (auto const& [key, value] : parameters())
      detail::check_parameter(find(*rule, key, where), value, where + '.' + key);
    if (name() == "histogram") check_histogram(where);
  }

  /// Throws config_unknown_field for a parameter that is none of `known`: for calibrators of the user's own.
  void allow(std::initializer_list<std::string_view> known, std::string const& where) const {
    for (auto const& [key, value] : parameters())
      if (std::find(known.begin(), known.end(), key) == known.end())
        fail(error_id::config_unknown_field, where, ": the calibrator '", name(), "' has no parameter '", key, '\'',
             close_names(key, {known.begin(), known.size()}));
  }

  /// A parameter's value as given, else the default of a built-in calibrator, else `otherwise`. Throws config_value for
  /// one of another kind.
  double number(std::string_view key, double otherwise = 0) const {
    if (algorithm_value const* const v = given(key)) {
      if (auto const n = detail::as_number(*v)) return *n;
      fail(error_id::config_value, "calibrator '", name(), "': the parameter '", key, "' must be a number");
    }
    detail::parameter_rule const* const rule = rule_of(key);
    return rule ? rule->initial : otherwise;
  }
  std::string text(std::string_view key, std::string const& otherwise = "") const {
    algorithm_value const* const v = given(key);
    if (v == nullptr) return otherwise;
    if (auto const* const t = std::get_if<std::string>(v)) return *t;
    fail(error_id::config_value, "calibrator '", name(), "': the parameter '", key, "' must be a text");
  }
  /// How a histogram is looked at: "entropy" where nothing was said, which is for integers.
  std::string method() const { return text("method", "entropy"); }

  /// The value as given, or null.
  algorithm_value const* given(std::string_view key) const {
    for (auto const& [k, value] : parameters())
      if (k == key) return &value;
    return nullptr;
  }
  friend bool operator==(calibrator_config const& a, calibrator_config const& b) {
    return a.said_ == b.said_ || (a.name() == b.name() && same_parameters(a.parameters(), b.parameters()));
  }

 private:
  /// In any order.
  static bool same_parameters(calibrator_parameters const& a, calibrator_parameters const& b) {
    return std::is_permutation(a.begin(), a.end(), b.begin(), b.end());
  }

  struct contents {
    std::string name = "max";
    calibrator_parameters parameters = {};
  };
  contents const& what() const {
    static contents const max;
    return said_ ? *said_ : max;
  }

  static detail::parameter_rule const& find(detail::method_rule const& rule, std::string_view key,
                                            std::string const& where) {
    std::vector<std::string_view> names;
    for (auto const& p : rule.parameters) {
      if (p.name == key) return p;
      names.push_back(p.name);
    }
    fail(error_id::config_unknown_field, where, ": the calibrator '", rule.name, "' has no parameter '", key, '\'',
         close_names(key, detail::span_of(names)));
  }
  detail::parameter_rule const* rule_of(std::string_view key) const {
    if (detail::method_rule const* const rule = detail::find_calibrator(name()))
      for (auto const& p : rule->parameters)
        if (p.name == key) return &p;
    return nullptr;
  }

  void check_histogram(std::string const& where) const {
    if (!detail::is_histogram_method(method()))
      fail(error_id::config_value, where, ".method: '", method(), "' is none of entropy, mse, percentile");
    if (given("percentile") && method() != "percentile")
      fail(error_id::config_conflict, where, ".percentile: needs method 'percentile', not '", method(), '\'');
    if (method() == "mse" && number("bins") == 128)
      fail(error_id::config_conflict, where, ".bins: mse clips behind the first 128 bins, so it needs more than 128");
  }

  std::shared_ptr<contents const> said_;  ///< never changed once it is made
};

}  // namespace mixbit
