// y = Q(x) with the rule of the format: traversal only, the arithmetic is in formats/.
#pragma once

#include <cassert>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/formats/rules.hpp"
#include "mixbit/reference/scalar/flags.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// The operation of `sweep` for one rule and element type.
template <class T, class Rule>
struct fake_quantize_op {
  struct tile {
    float forward[tile_width], backward[tile_width];
    std::uint32_t keep[tile_width];
  };
  Rule rule;
  T const* x;
  T* y;
  float const* amax;  // null: no scale

  formats::scaling load(std::int64_t group) const { return amax ? rule.prepare(amax[group]) : formats::scaling{}; }
  void load(std::int64_t group, tile& t, std::int64_t i) const {
    auto const s = load(group);
    t.forward[i] = s.forward;
    t.backward[i] = s.backward;
    t.keep[i] = s.keep;
  }

  template <bool Unit>
  void run(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
           formats::scaling const s) const {
    T const* const in = x + at[0];
    T* const out = y + at[1];
    Rule const r = rule;
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i)
      out[Unit ? i : i * stride[1]] = r.fake_quantize(s, in[Unit ? i : i * stride[0]]);
  }

  template <bool Unit>
  void each(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
            tile const& t) const {
    T const* const in = x + at[0];
    T* const out = y + at[1];
    Rule const r = rule;
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i)
      out[Unit ? i : i * stride[1]] =
          r.fake_quantize({t.forward[i], t.backward[i], t.keep[i]}, in[Unit ? i : i * stride[0]]);
  }
};

inline void fake_quantize(executor_ref const& threads, fake_quantize_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type);
  assert(a.amax || a.x.size() == 0 || a.how.element.kind == element_kind::minifloat);
  // without a scale all groups are alike, and one group makes the longest runs
  loop_nest<2> const nest{{&a.x, &a.y}, a.amax ? a.groups : per_tensor(a.x)};
  if (a.how.element.is_unsigned) count_negative(threads, a.x, a.flags);
  visit_compute(a.x.type, [&]<class T>(T) {
    formats::visit_rule<T>(a.how, [&]<class Rule>(Rule const& rule) {
      sweep(threads, nest, fake_quantize_op<T, Rule>{rule, a.x.as<T>(), a.y.as<T>(), a.amax});
    });
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
