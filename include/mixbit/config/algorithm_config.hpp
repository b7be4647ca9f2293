// Calibration algorithms as data: a method's name and its parameters, checked against one table. Names, defaults and
// ranges are ModelOpt's. What the methods do is calib's.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mixbit/config/attribute_types.hpp"
#include "mixbit/config/closest.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/span_of.hpp"

namespace mixbit {

using algorithm_value = std::variant<bool, std::int64_t, double, std::string>;

namespace detail {

enum class parameter_kind : std::uint8_t { flag, integer, number, text };

inline constexpr double no_limit = std::numeric_limits<double>::infinity();

/// One parameter of a method: its default (0 or 1 for a flag, none for a text) and its range. `above` excludes the
/// lower limit, `below` the upper one.
struct parameter_rule {
  std::string_view name;
  parameter_kind kind;
  double initial;
  double low = -no_limit, high = no_limit;
  bool above = false, below = false;
};

struct method_rule {
  std::string_view name;
  std::span<parameter_rule const> parameters;
};

inline constexpr parameter_rule common_rules[] = {
    {"layerwise", parameter_kind::flag, 0},
    {"layerwise_checkpoint_dir", parameter_kind::text, 0},
    {"moe_calib_experts_ratio", parameter_kind::number, 1.0, 0, 1, true},
};
inline constexpr parameter_rule max_rules[] = {
    {"distributed_sync", parameter_kind::flag, 1},
    {"sync_expert_weight_amax", parameter_kind::flag, 0},
};
inline constexpr parameter_rule mse_rules[] = {
    {"step_size", parameter_kind::number, 0.1, 0, no_limit, true},
    {"start_multiplier", parameter_kind::number, 0.25, 0, no_limit, true},
    {"stop_multiplier", parameter_kind::number, 4.0, 0, no_limit, true},
    {"fp8_scale_sweep", parameter_kind::flag, 0},
    {"distributed_sync", parameter_kind::flag, 1},
};
inline constexpr parameter_rule local_hessian_rules[] = {
    {"step_size", parameter_kind::number, 0.1, 0, no_limit, true},
    {"start_multiplier", parameter_kind::number, 0.25, 0, no_limit, true},
    {"stop_multiplier", parameter_kind::number, 4.0, 0, no_limit, true},
    {"fp8_scale_sweep", parameter_kind::flag, 1},
    {"block_size", parameter_kind::integer, 16, 1},
    {"distributed_sync", parameter_kind::flag, 1},
    {"debug", parameter_kind::flag, 0},
};
inline constexpr parameter_rule smoothquant_rules[] = {{"alpha", parameter_kind::number, 1.0, 0, 1}};
// awq_full takes the parameters of both its halves: lite's first two, clip's from the second on.
inline constexpr parameter_rule awq_rules[] = {
    {"alpha_step", parameter_kind::number, 0.1, 0, 1, true},
    {"debug", parameter_kind::flag, 0},
    {"max_co_batch_size", parameter_kind::integer, 1024, 1},
    {"max_tokens_per_batch", parameter_kind::integer, 64, 1},
    {"min_clip_ratio", parameter_kind::number, 0.5, 0, 1, true, true},
    {"shrink_step", parameter_kind::number, 0.05, 0, 1, true},
};
inline constexpr parameter_rule svdquant_rules[] = {{"lowrank", parameter_kind::integer, 32, 1}};
inline constexpr parameter_rule gptq_rules[] = {
    {"perc_damp", parameter_kind::number, 0.01, 0, 1, true},
    {"block_size", parameter_kind::integer, 128, 1},
    {"fused", parameter_kind::flag, 0},
    {"activation_order", parameter_kind::flag, 0},  // not ModelOpt's: columns of large inputs first
};
inline constexpr parameter_rule act_headroom_rules[] = {
    {"rho", parameter_kind::number, 16384, 0, no_limit, true},
    {"anchor", parameter_kind::number, 1, 0, 100, true},
    {"upper", parameter_kind::number, 99.99, 0, 100, true},
};
// Not ModelOpt's, whose export does it: layers that one kernel runs share scales (calib/shared_state.hpp).
inline constexpr parameter_rule share_state_rules[] = {
    {"groups", parameter_kind::text, 0},
    {"input_amax", parameter_kind::flag, 1},
    {"weight_amax", parameter_kind::flag, 1},
    {"pre_quant_scale", parameter_kind::flag, 1},
};

inline constexpr method_rule method_rules[] = {
    {"max", max_rules},
    {"mse", mse_rules},
    {"local_hessian", local_hessian_rules},
    {"smoothquant", smoothquant_rules},
    {"awq_lite", {awq_rules, 2}},
    {"awq_clip", {awq_rules + 1, std::size(awq_rules) - 1}},
    {"awq_full", awq_rules},
    {"svdquant", svdquant_rules},
    {"gptq", gptq_rules},
    {"nvfp4_act_headroom", act_headroom_rules},
    {"share_state", share_state_rules},
    {"lsq", {}},
    {"dual_lsq", {}},
};

/// The method's rule. Throws config_unknown_field.
inline method_rule const& find_method(std::string_view name, std::string_view where) {
  std::vector<std::string_view> names;
  for (method_rule const& m : method_rules) {
    if (m.name == name) return m;
    names.push_back(m.name);
  }
  fail(error_id::config_unknown_field, where, ": no algorithm is named \"", name, '"',
       close_names(name, span_of(names)));
}

/// The parameter's rule. Throws config_unknown_field.
inline parameter_rule const& find_parameter(method_rule const& method, std::string_view name, std::string_view where) {
  std::vector<std::string_view> names;
  for (std::span<parameter_rule const> rules : {method.parameters, std::span<parameter_rule const>{common_rules}})
    for (parameter_rule const& p : rules) {
      if (p.name == name) return p;
      names.push_back(p.name);
    }
  fail(error_id::config_unknown_field, where, ": ", method.name, " has no parameter \"", name, '"',
       close_names(name, span_of(names)));
}

inline std::optional<double> as_number(algorithm_value const& v) {
  if (auto const* d = std::get_if<double>(&v)) return *d;
  if (auto const* i = std::get_if<std::int64_t>(&v)) return static_cast<double>(*i);
  return std::nullopt;
}

inline void check_parameter(parameter_rule const& rule, algorithm_value const& value, std::string const& where) {
  constexpr char const* wanted[] = {"true or false", "an integer", "a number", "a text"};
  std::optional<double> const number = as_number(value);
  bool const fits = rule.kind == parameter_kind::flag    ? std::holds_alternative<bool>(value)
                    : rule.kind == parameter_kind::text  ? std::holds_alternative<std::string>(value)
                    : rule.kind == parameter_kind::number ? number.has_value()
                                                          : std::holds_alternative<std::int64_t>(value);
  if (!fits) fail(error_id::config_value, where, ": must be ", wanted[static_cast<int>(rule.kind)]);
  if (!number) return;
  bool const low = rule.above ? *number > rule.low : *number >= rule.low;
  bool const high = rule.below ? *number < rule.high : *number <= rule.high;
  if (low && high && std::isfinite(*number)) return;
  fail(error_id::config_value, where, ": ", *number, " is not in ", rule.above ? '(' : '[', rule.low, ", ", rule.high,
       rule.below || std::isinf(rule.high) ? ')' : ']');
}

}  // namespace detail

/// A user's own method has a dot in its name; its parameters are its own business.
inline bool is_own_method(std::string_view name) { return name.find('.') != name.npos; }

/// One method with the parameters that differ from its defaults, in the order in which they were given.
struct algorithm_step {
  std::string method = "max";
  std::vector<std::pair<std::string, algorithm_value>> parameters = {};
  as_written<bool> as_object{};  ///< {"method": "max"} rather than "max"

  /// Throws `error` (config_unknown_field, config_value, config_conflict): `where`, the parameter and its value.
  void validate(std::string const& where) const {
    detail::method_rule const* const rule = is_own_method(method) ? nullptr : &detail::find_method(method, where);
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      auto const& [name, value] = parameters[i];
      if (rule) detail::check_parameter(detail::find_parameter(*rule, name, where), value, where + '.' + name);
      for (std::size_t k = 0; k < i; ++k)
        if (parameters[k].first == name) fail(error_id::config_conflict, where, '.', name, ": is given twice");
    }
    if (given("layerwise_checkpoint_dir") && !flag("layerwise"))
      fail(error_id::config_conflict, where, ".layerwise_checkpoint_dir: needs layerwise = true");
  }

  /// A parameter's value, else its default. The name must be one that the method has; an own method's parameters have
  /// no defaults, so `given` comes first.
  double number(std::string_view name) const {
    if (algorithm_value const* v = given(name))
      if (std::optional<double> const n = detail::as_number(*v)) return *n;
    return rule_of(name).initial;
  }
  std::int64_t integer(std::string_view name) const { return static_cast<std::int64_t>(number(name)); }
  bool flag(std::string_view name) const {
    algorithm_value const* v = given(name);
    return v && std::holds_alternative<bool>(*v) ? std::get<bool>(*v) : rule_of(name).initial != 0;
  }
  std::string text(std::string_view name) const {
    algorithm_value const* v = given(name);
    return v && std::holds_alternative<std::string>(*v) ? std::get<std::string>(*v) : std::string{};
  }
  /// The value as given, or null where the default holds.
  algorithm_value const* given(std::string_view name) const {
    for (auto const& [key, value] : parameters)
      if (key == name) return &value;
    return nullptr;
  }
  friend bool operator==(algorithm_step const&, algorithm_step const&) = default;

 private:
  detail::parameter_rule const& rule_of(std::string_view name) const {
    if (!is_own_method(method))
      return detail::find_parameter(detail::find_method(method, "algorithm"), name, "algorithm");
    for (detail::parameter_rule const& p : detail::common_rules)
      if (p.name == name) return p;
    fail(error_id::config_value, "algorithm: ", method, " needs a parameter \"", name, '"');
  }
};

/// Which algorithms run, in order. `absent` (no "algorithm" in the file, as in the KV-cache presets) means max;
/// `none` (null) means that nothing is calibrated.
struct algorithm_config {
  enum class presence : std::uint8_t { absent, none, given };
  presence state = presence::absent;
  std::vector<algorithm_step> given_steps = {};
  as_written<bool> as_list{};

  algorithm_config() = default;
  algorithm_config(algorithm_step step)  // NOLINT: algorithm = algorithm_step{...}
      : state{presence::given}, given_steps{std::move(step)} {}
  algorithm_config(char const* method) : algorithm_config{algorithm_step{method}} {}         // NOLINT
  algorithm_config(std::string method) : algorithm_config{algorithm_step{std::move(method)}} {}  // NOLINT
  algorithm_config(std::vector<algorithm_step> several)                                       // NOLINT
      : state{presence::given}, given_steps{std::move(several)}, as_list{true} {}
  static algorithm_config none() {
    algorithm_config config;
    config.state = presence::none;
    return config;
  }

  /// What is to run: nothing for `none`, max where nothing was said.
  std::vector<algorithm_step> steps() const {
    if (state == presence::absent) return {algorithm_step{}};
    return given_steps;
  }
  void validate(std::string const& where = "algorithm") const {
    for (std::size_t i = 0; i < given_steps.size(); ++i)
      given_steps[i].validate(as_list.value ? where + '[' + std::to_string(i) + ']' : where);
  }
  friend bool operator==(algorithm_config const&, algorithm_config const&) = default;
};

}  // namespace mixbit
