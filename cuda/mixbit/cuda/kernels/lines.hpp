// Kernels that see a group whole: its amax is taken from the data, or one of two scales is chosen, or it is all that
// there is to do. Groups lie along one axis (core/partition.hpp: line_axis).
//
// Lanes, neighbouring threads, share a line: each takes every width-th octet. A block format of 16 or 32 elements takes
// 2 or 4 lanes, each of which keeps its octet in registers, so memory is read once. Longer lines are read again from
// the second octet of each lane on.
#pragma once

#include "mixbit/cuda/codes.hpp"
#include "mixbit/cuda/kernels/reduce.hpp"

namespace mixbit::cuda {

/// Where a line is.
template <int Count>
struct line {
  std::int64_t offset[Count]{};
  std::int64_t group = 0, index = 0, length = 0;  ///< index: of the group along the axis
};

/// All lines of a tensor, in the order in which they lie in memory.
template <int Count>
struct lines {
  nest<Count> starts;  ///< of lines; a unit is one
  std::int64_t stride[Count]{};
  std::int64_t size = 1, block = 1;  ///< of the axis
  divider below;                     ///< groups behind the axis
  divider along;                     ///< groups of the axis
  int shift = 0;                     ///< 2^shift lanes share a line
  int rounds = 1;                    ///< octets of a lane

  MIXBIT_HD int width() const { return 1 << shift; }
  MIXBIT_HD int lane(int thread) const { return thread & (width() - 1); }

  MIXBIT_HD line<Count> locate(std::int64_t unit) const {
    line<Count> l;
    if (unit >= starts.units()) return l;
    auto const p = starts.locate(unit);
    std::int64_t const over = below.quotient(p.group);
    l.group = p.group;
    l.index = over - along.quotient(over) * along.divisor();
    std::int64_t const left = size - l.index * block;
    l.length = left < block ? left : block;
    for (int k = 0; k < Count; ++k) l.offset[k] = p.offset[k];
    return l;
  }
  /// Elements of octet number `o` of a line.
  MIXBIT_HD static int count(line<Count> const& l, std::int64_t o) {
    std::int64_t const left = l.length - o * octet;
    return left <= 0 ? 0 : left < octet ? static_cast<int>(left) : octet;
  }
};

/// The largest magnitude of an octet for a group's scale. NaN is skipped; infinities count as the largest finite
/// number, or are skipped too where the scale would have no other bound.
MIXBIT_HD inline std::uint32_t octet_top(float const (&v)[octet], bool skips_infinity) {
  std::uint32_t top = 0;
  MIXBIT_CUDA_UNROLL
  for (int i = 0; i < octet; ++i) {
    std::uint32_t m = fp::bits(v[i]) & 0x7fffffffu;
    if (m >= infinity_bits) m = m > infinity_bits || skips_infinity ? 0 : infinity_bits - 1;
    top = m > top ? m : top;
  }
  return top;
}

/// amax of groups that are lines of their own: nobody else writes them.
struct amax_of_lines {
  lines<1> walk;
  const_tensor_data x;
  float* amax;
  std::uint64_t* flag;

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    typename Context::template per_thread<std::uint32_t> top;
    typename Context::template per_thread<line<1>> own;
    for_stretches(at, walk.starts.units(), at.threads() >> walk.shift, [&](std::int64_t first) {
      at.each([&](int thread) {
        auto const& l = own[thread] = walk.locate(first + (thread >> walk.shift));
        std::uint64_t nonfinite = 0;
        top[thread] = 0;
        for (int r = 0; r < walk.rounds; ++r) {
          std::int64_t const o = std::int64_t{r} * walk.width() + walk.lane(thread);
          int const n = walk.count(l, o);
          if (n == 0) break;
          float v[octet];
          load_octet(x.type, x.data, l.offset[0] + o * octet * walk.stride[0], walk.stride[0], n, v);
          std::uint32_t key[1] = {top[thread]};
          nonfinite += static_cast<std::uint64_t>(take_octet<amax_target>(v, n, key));
          top[thread] = key[0];
        }
        note(at, flag, nonfinite);
      });
      at.max_over(top, walk.width());
      at.each([&](int thread) {
        auto const& l = own[thread];
        if (walk.lane(thread) == 0 && l.length > 0 && top[thread] > fp::bits(amax[l.group]))
          amax[l.group] = fp::from_bits(top[thread]);
      });
    });
  }
};

/// Where a line's results go. `scale` is called on one lane of each line, `octet_done` on all for each octet.
template <class Rule>
struct write_fake {
  static constexpr int tensors = 2;
  static constexpr bool of_file = false;  // does the scale of the file decide, or the amax?
  tensor_data y;

  MIXBIT_HD void scale(Rule const&, line<2> const&, float) const {}
  MIXBIT_HD std::uint64_t octet_done(Rule const& rule, lines<2> const& walk, line<2> const& l, std::int64_t o, int n,
                                     formats::scaling const& s, float (&v)[octet]) const {
    MIXBIT_CUDA_UNROLL
    for (int i = 0; i < octet; ++i) v[i] = rule.fake_quantize(s, v[i]);
    store_octet(y.type, y.data, l.offset[1] + o * octet * walk.stride[1], walk.stride[1], n, v);
    return 0;
  }
};

/// Scales as the file holds them, and the codes where whole octets of a line are whole bytes of the file.
template <class Rule>
struct write_codes {
  static constexpr int tensors = 1;
  static constexpr bool of_file = true;
  void* scales;
  dtype scale_type;
  float* tensor_scale;
  std::uint8_t* codes;     ///< null: scales alone
  std::int64_t row_bytes;  ///< from one row of codes to the next
  code_form form;

  MIXBIT_HD void scale(Rule const& rule, line<1> const& l, float value) const {
    write_scale(scale_type, scales, l.group, value);
    if constexpr (requires { rule.tensor_scale(); })
      if (tensor_scale && l.group == 0) *tensor_scale = rule.tensor_scale();
  }
  MIXBIT_HD std::uint64_t octet_done(Rule const& rule, lines<1> const& walk, line<1> const& l, std::int64_t o, int n,
                                     formats::scaling const& s, float const (&v)[octet]) const {
    if (!codes) return 0;
    packed_codes packed;
    MIXBIT_CUDA_UNROLL
    for (int i = 0; i < octet; ++i)
      if (i < n) packed.put(form.bit_of(i), form.stored(rule.encode(s, v[i])));
    form.fill(packed, n);
    std::int64_t const row = walk.along.quotient(l.group), column = l.index * walk.block + o * octet;
    write_bytes(codes + row * row_bytes + column * form.width() / 8, packed, form.bytes_of(n));
    return count_nan(v);
  }
};

/// Quantizes lines. `Sink` is what is done with each octet.
template <class Rule, class Sink>
struct quantize_lines {
  static constexpr int tensors = Sink::tensors;
  lines<tensors> walk;
  const_tensor_data x;
  float const* amax;  ///< null: of the data
  float const* tensor_amax;
  Rule rule;
  Sink sink;
  std::uint64_t* negative;  ///< where values below zero are counted; may be null
  std::uint64_t* nan;

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    Rule const own_rule = rule_for(rule, tensor_amax);
    for_stretches(at, walk.starts.units(), at.threads() >> walk.shift,
                  [&](std::int64_t first) { stretch(at, own_rule, first); });
  }

 private:
  template <class Context>
  using per_thread_line = typename Context::template per_thread<line<tensors>>;
  struct eight {
    float v[octet];
  };
  template <class Context>
  using per_thread_octet = typename Context::template per_thread<eight>;

  MIXBIT_HD int load(line<tensors> const& l, std::int64_t o, float (&v)[octet]) const {
    int const n = walk.count(l, o);
    if (n > 0) load_octet(x.type, x.data, l.offset[0] + o * octet * walk.stride[0], walk.stride[0], n, v);
    return n;
  }

  template <class Context>
  MIXBIT_HD void stretch(Context& at, Rule const& own_rule, std::int64_t first) const {
    per_thread_line<Context> own;
    per_thread_octet<Context> kept;
    typename Context::template per_thread<std::uint32_t> top;
    at.each([&](int thread) {
      auto const& l = own[thread] = walk.locate(first + (thread >> walk.shift));
      std::uint64_t below = 0;
      top[thread] = 0;
      for (int r = walk.rounds - 1; r >= 0; --r) {  // the first octet last: it is kept
        if (load(l, std::int64_t{r} * walk.width() + walk.lane(thread), kept[thread].v) == 0) continue;
        std::uint32_t const found = octet_top(kept[thread].v, !formats::block_scaled<Rule>);
        top[thread] = found > top[thread] ? found : top[thread];
        if (negative) below += count_negative(kept[thread].v);
      }
      note(at, negative, below);
    });
    if (!amax) at.max_over(top, walk.width());
    else at.each([&](int thread) { top[thread] = own[thread].length > 0 ? fp::bits(amax[own[thread].group]) : 0; });
    typename Context::template per_thread<float> scale;
    if constexpr (formats::block_scaled<Rule>) choose_scale(at, own_rule, own, kept, top, scale);
    at.each([&](int thread) {
      write(at, own_rule, own[thread], kept[thread].v, walk.lane(thread), top[thread], scale[thread]);
    });
  }

  /// The scale of each line, as a file holds it; of two that the rule allows the one that errs less, else the first.
  template <class Context>
  MIXBIT_HD void choose_scale(Context& at, Rule const& own_rule, per_thread_line<Context>& own,
                              per_thread_octet<Context>& kept,
                              typename Context::template per_thread<std::uint32_t>& top,
                              typename Context::template per_thread<float>& scale) const {
    typename Context::template per_thread<float> second;
    typename Context::template per_thread<double> error, other_error;
    at.each([&](int thread) {
      float const amax_of_line = fp::from_bits(top[thread]);
      scale[thread] = own_rule.file_scale(amax_of_line);
      if (own_rule.has_alternative()) second[thread] = own_rule.file_scale(own_rule.alternative(amax_of_line));
    });
    if (!own_rule.has_alternative()) return;
    squared_error(at, own_rule, own, kept, scale, error);
    squared_error(at, own_rule, own, kept, second, other_error);
    at.each([&](int thread) {
      if (other_error[thread] < error[thread]) scale[thread] = second[thread];
    });
  }

  /// The sum of squared errors in the order of the elements: lane after lane adds its octet to what it is handed.
  template <class Context>
  MIXBIT_HD void squared_error(Context& at, Rule const& own_rule, per_thread_line<Context>& own,
                               per_thread_octet<Context>& kept,
                               typename Context::template per_thread<float>& scale,
                               typename Context::template per_thread<double>& sum) const {
    at.each([&](int thread) { sum[thread] = 0; });
    for (int r = 0; r < walk.rounds; ++r)
      for (int lane = 0; lane < walk.width(); ++lane) {
        at.each([&](int thread) {
          if (walk.lane(thread) == lane)
            add_errors(own_rule, own[thread], kept[thread].v, r, lane, scale[thread], sum[thread]);
        });
        at.take(sum, lane, walk.width());
      }
  }
  MIXBIT_HD void add_errors(Rule const& own_rule, line<tensors> const& l, float const (&first)[octet], int r, int lane,
                            float scale, double& sum) const {
    float loaded[octet];
    bool const kept = r == 0;
    std::int64_t const o = std::int64_t{r} * walk.width() + lane;
    int const n = kept ? walk.count(l, o) : load(l, o, loaded);
    auto const s = own_rule.of_scale(scale);
    MIXBIT_CUDA_UNROLL
    for (int i = 0; i < octet; ++i) {
      if (i >= n) continue;
      float const v = kept ? first[i] : loaded[i];
      double const d = own_rule.fake_quantize(s, v) - v;
      sum += d * d;
    }
  }

  template <class Context>
  MIXBIT_HD void write(Context& at, Rule const& own_rule, line<tensors> const& l, float (&kept)[octet], int lane,
                       std::uint32_t top, float scale) const {
    if (l.length == 0) return;
    formats::scaling s;
    if constexpr (formats::block_scaled<Rule>) {
      if (lane == 0) sink.scale(own_rule, l, scale);
      s = Sink::of_file || own_rule.has_alternative() ? own_rule.of_scale(scale) : own_rule.prepare(fp::from_bits(top));
    } else {
      s = own_rule.prepare(fp::from_bits(top));
    }
    std::uint64_t strange = 0;
    int n = walk.count(l, lane);
    for (int r = 0; n > 0;) {
      std::int64_t const o = std::int64_t{r} * walk.width() + lane;
      strange += sink.octet_done(own_rule, walk, l, o, n, s, kept);
      n = ++r < walk.rounds ? load(l, o + walk.width(), kept) : 0;
    }
    note(at, nan, strange);
  }
};

}  // namespace mixbit::cuda
