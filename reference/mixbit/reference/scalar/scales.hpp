// Scales in the type in which a file holds them.
#pragma once

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/reference/target.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

template <class Rule>
void write_scales(executor_ref const& threads, encode_args const& a, Rule const& rule) {
  std::int64_t const count = a.groups.group_count();
  visit_compute(a.how.scale_type, [&]<class S>(S) {
    for_pieces(threads, (count + piece_elements - 1) / piece_elements, [&](std::int64_t piece) {
      std::int64_t const end = std::min(count, (piece + 1) * piece_elements);
      for (std::int64_t g = piece * piece_elements; g < end; ++g)
        static_cast<S*>(a.scales)[g] = from_float<S>(rule.file_scale(a.amax[g]));
    });
  });
}

/// The scale of one group; 1 where there are none.
template <class S>
float read_scale(void const* scales, std::int64_t group) {
  return scales ? to_float(static_cast<S const*>(scales)[group]) : 1.0f;
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
