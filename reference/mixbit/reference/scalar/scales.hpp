// Scales in the type in which a file holds them.
#pragma once

#include "mixbit/formats/scale_types.hpp"
#include "mixbit/reference/scalar/blocks.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// The scale of one group; 1 where there are none.
inline float read_scale(dtype type, void const* scales, std::int64_t group) {
  if (!scales) return 1.0f;
  return formats::visit_scale(
      type, [&]<class S>(S) { return formats::scale_value(static_cast<S const*>(scales)[group]); });
}

/// Puts the scale of one group, a number of that type, where it belongs.
inline void write_scale(dtype type, void* scales, std::int64_t group, float scale) {
  formats::visit_scale(type, [&]<class S>(S) { static_cast<S*>(scales)[group] = formats::scale_as<S>(scale); });
}

template <class Rule>
void write_scales(executor_ref const& threads, encode_args const& a, Rule const& rule) {
  if (!a.scales) return;
  if constexpr (requires { rule.tensor_scale(); })
    if (a.tensor_scale) *a.tensor_scale = rule.tensor_scale();
  dtype const type = a.how.scale_type;
  if constexpr (formats::block_scaled<Rule>) {
    if (needs_lines(rule, a.use)) {
      line_walk<1>{{&a.x}, a.groups}.visit(
          threads, [&](auto const& at, auto const& stride, std::int64_t length, std::int64_t group) {
            line const l{a.x, at[0], stride[0], length};
            float const amax = a.use == amax_use::data ? amax_of_line(l, false) : a.amax[group];
            write_scale(type, a.scales, group, choose_scale(rule, amax, l));
          });
      return;
    }
  }
  std::int64_t const count = a.groups.group_count();
  for_pieces(threads, (count + piece_elements - 1) / piece_elements, [&](std::int64_t piece) {
    std::int64_t const end = std::min(count, (piece + 1) * piece_elements);
    for (std::int64_t g = piece * piece_elements; g < end; ++g)
      write_scale(type, a.scales, g, rule.file_scale(a.amax[g]));
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
