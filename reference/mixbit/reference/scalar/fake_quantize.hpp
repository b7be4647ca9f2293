// y = Q(x) with the rule of the format: traversal only, the arithmetic is in formats/.
#pragma once

#include "mixbit/reference/scalar/blocks.hpp"
#include "mixbit/reference/scalar/flags.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// Elements that share a scaling.
template <class Rule>
void fake_quantize_run(Rule const rule, const_tensor_ref const& x, tensor_ref const& y,
                       std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride,
                       std::int64_t length, formats::scaling const s) {
  float in[tile_width], out[tile_width];
  for_tiles(length, [&](std::int64_t first, std::int64_t n) {
    std::int64_t const from = at[0] + first * stride[0], to = at[1] + first * stride[1];
    float const* const row = load_row(x, from, stride[0], n, in);
    float* const result = row_target(y, to, stride[1], out);
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i) result[i] = rule.fake_quantize(s, row[i]);
    store_row(y, to, stride[1], n, result);
  });
}

/// The operation of `sweep` for one rule.
template <class Rule>
struct fake_quantize_op {
  static constexpr bool any_stride = true;
  struct tile {
    float forward[tile_width], backward[tile_width];
    std::uint32_t keep[tile_width];
  };
  Rule rule;
  const_tensor_ref const& x;
  tensor_ref const& y;
  float const* amax;  // null: no scale

  formats::scaling load(std::int64_t group) const { return amax ? rule.prepare(amax[group]) : formats::scaling{}; }
  void load(std::int64_t group, tile& t, std::int64_t i) const {
    auto const s = load(group);
    t.forward[i] = s.forward;
    t.backward[i] = s.backward;
    t.keep[i] = s.keep;
  }

  template <bool>
  void run(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
           formats::scaling const s) const {
    fake_quantize_run(rule, x, y, at, stride, n, s);
  }

  template <bool>
  void each(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride, std::int64_t n,
            tile const& t) const {
    float in[tile_width], out[tile_width];
    float const* const row = load_row(x, at[0], stride[0], n, in);
    float* const result = row_target(y, at[1], stride[1], out);
    Rule const r = rule;
    MIXBIT_INDEPENDENT_LOOP
    for (std::int64_t i = 0; i < n; ++i)
      result[i] = r.fake_quantize({t.forward[i], t.backward[i], t.keep[i]}, row[i]);
    store_row(y, at[1], stride[1], n, result);
  }
};

inline void fake_quantize(executor_ref const& threads, fake_quantize_args const& a) {
  assert(a.x.same_shape(a.y) && a.x.type == a.y.type);
  bool const cast = a.amax == nullptr && a.use == amax_use::given;
  assert(!cast || a.x.size() == 0 || a.how.element.kind == element_kind::minifloat);
  if (a.how.element.is_unsigned) count_negative(threads, a.x, a.flags);
  formats::visit_rule(a.how, rule_inputs_of(a), [&]<class Rule>(Rule const& rule) {
    if (needs_lines(rule, a.use)) {
      line_walk<2>{{&a.x, &a.y}, a.groups}.visit(
          threads, [&](auto const& at, auto const& stride, std::int64_t length, std::int64_t group) {
            float const* const given = a.use == amax_use::data ? nullptr : a.amax + group;
            auto const s = scaling_of_line(rule, given, {a.x, at[0], stride[0], length});
            fake_quantize_run(rule, a.x, a.y, at, stride, length, s);
          });
      return;
    }
    // without a scale all groups are alike, and one group makes the longest runs
    loop_nest<2> const nest{{&a.x, &a.y}, cast ? per_tensor(a.x) : a.groups};
    sweep(threads, nest, fake_quantize_op<Rule>{rule, a.x, a.y, a.amax});
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
