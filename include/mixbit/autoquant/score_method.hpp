// How sensitivity is measured, and the names that statistics and plans have for it.
#pragma once

#include <cstdint>
#include <string_view>

namespace mixbit {

/// How the score of a format in a group is measured; lower is better, and scores add up.
enum class score_method : std::uint8_t {
  gradient,    ///< Σ (∂L/∂y · Δy)², all groups in one forward and backward a step (gradient_scores.hpp)
  kl_div,      ///< Σ KL(p_unquantized || p_recipe) over logits, one group quantized at a time (kl_scores.hpp)
  degradation  ///< metric(one group quantized) - metric(unquantized), the user's own (kl_scores.hpp)
};

inline constexpr std::string_view score_method_names[] = {"gradient", "kl_div", "degradation"};

constexpr std::string_view name_of(score_method m) { return score_method_names[static_cast<int>(m)]; }

/// What a plan says that no search has made: its formats were chosen by the squared error of weights.
inline constexpr std::string_view weight_error_method = "weight_error";

/// Is it what a plan may name?
constexpr bool is_plan_method(std::string_view name) {
  for (std::string_view const known : score_method_names)
    if (name == known) return true;
  return name == weight_error_method;
}

}  // namespace mixbit
