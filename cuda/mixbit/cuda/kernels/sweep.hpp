// Kernels that treat elements one by one, given what belongs to their groups: fake quantization with a given amax, the
// backward mask, differences, shifts and channel scales.
#pragma once

#include "mixbit/cuda/kernels/context.hpp"
#include "mixbit/cuda/nest.hpp"
#include "mixbit/formats/rules.hpp"

namespace mixbit::cuda {

/// A sweep of an operation over all octets. It provides
///   struct state                              what a thread keeps of an octet between reading and writing
///   read(walk, place, state)                  loads alone, so that those of several octets are in flight together
///   std::uint64_t write(walk, place, state)   computes and stores; returns what `flag` is to count
/// and, where a part of it lies in the device's memory, on_device(), the operation with that part.
template <int Count, class Op>
struct sweep {
  nest<Count> walk;
  Op op;
  std::uint64_t* flag = nullptr;

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    constexpr int octets = Context::octets;
    Op const own = complete();
    at.each([&](int thread) {
      std::uint64_t noted = 0;
      for_stretches(at, walk.units(), std::int64_t{at.threads()} * octets, [&](std::int64_t first) {
        place<Count> places[octets];
        typename Op::state states[octets];
        MIXBIT_CUDA_UNROLL
        for (int u = 0; u < octets; ++u) {
          std::int64_t const unit = first + thread + std::int64_t{u} * at.threads();
          if (unit >= walk.units()) continue;  // its place has no elements
          places[u] = walk.locate(unit);
          own.read(walk, places[u], states[u]);
        }
        MIXBIT_CUDA_UNROLL
        for (int u = 0; u < octets; ++u)
          if (places[u].count > 0) noted += own.write(walk, places[u], states[u]);
      });
      note(at, flag, noted);
    });
  }

 private:
  MIXBIT_HD Op complete() const {
    if constexpr (requires { op.on_device(); }) return op.on_device();
    else return op;
  }
};

/// Calls f(i, group) for the elements of an octet, in a loop of its full length, which unrolls.
template <int Count, class F>
MIXBIT_HD void for_groups(nest<Count> const& walk, place<Count> const& p, F&& f) {
  std::int64_t group = p.group, phase = p.phase;
  MIXBIT_CUDA_UNROLL
  for (int i = 0; i < octet; ++i) {
    if (i < p.count) f(i, group);
    if (++phase == walk.block()) {
      phase = 0;
      group += walk.group_stride();
    }
  }
}

/// Do all elements of an octet belong to one group?
template <int Count>
MIXBIT_HD bool in_one_group(nest<Count> const& walk, place<Count> const& p) {
  return p.phase + p.count <= walk.block();
}

/// What most operations read: an octet of x, the first tensor of two.
struct reads_x {
  const_tensor_data x;

  struct state {
    float v[octet];
  };

  MIXBIT_HD void read(nest<2> const& walk, place<2> const& p, state& s) const {
    load_octet(x.type, x.data, p.offset[0], walk.stride(0), static_cast<int>(p.count), s.v);
  }
};

template <class Rule>
struct fake_quantize_op : reads_x {
  tensor_data y;
  float const* amax;         ///< null: no scale
  float const* tensor_amax;
  Rule rule;
  bool counts_negative;

  MIXBIT_HD fake_quantize_op on_device() const {
    fake_quantize_op own = *this;
    own.rule = rule_for(rule, tensor_amax);
    return own;
  }
  MIXBIT_HD std::uint64_t write(nest<2> const& walk, place<2> const& p, state& s) const {
    std::uint64_t const negative = counts_negative ? count_negative(s.v) : 0;
    if (in_one_group(walk, p)) {
      auto const scaling = amax ? rule.prepare(amax[p.group]) : formats::scaling{};
      MIXBIT_CUDA_UNROLL
      for (int i = 0; i < octet; ++i) s.v[i] = rule.fake_quantize(scaling, s.v[i]);
    } else {
      for_groups(walk, p, [&](int i, std::int64_t group) {
        s.v[i] = rule.fake_quantize(amax ? rule.prepare(amax[group]) : formats::scaling{}, s.v[i]);
      });
    }
    store_octet(y.type, y.data, p.offset[1], walk.stride(1), static_cast<int>(p.count), s.v);
    return negative;
  }
};

/// Gradients are not read: what passes stays as it is.
struct mask_op : reads_x {
  tensor_data grad;
  float const* amax;

  MIXBIT_HD std::uint64_t write(nest<2> const& walk, place<2> const& p, state& s) const {
    for_groups(walk, p, [&](int i, std::int64_t group) {
      if (fp::abs(s.v[i]) > amax[group]) store_zero(grad.type, grad.data, p.offset[1] + i * walk.stride(1));
    });
    return 0;
  }
};

struct subtract_op {
  const_tensor_data a, b;
  tensor_data y;

  struct state {
    float a[octet], b[octet];
  };

  MIXBIT_HD void read(nest<3> const& walk, place<3> const& p, state& s) const {
    load_octet(a.type, a.data, p.offset[0], walk.stride(0), static_cast<int>(p.count), s.a);
    load_octet(b.type, b.data, p.offset[1], walk.stride(1), static_cast<int>(p.count), s.b);
  }
  MIXBIT_HD std::uint64_t write(nest<3> const& walk, place<3> const& p, state& s) const {
    MIXBIT_CUDA_UNROLL
    for (int i = 0; i < octet; ++i) s.a[i] = s.a[i] - s.b[i];
    store_octet(y.type, y.data, p.offset[2], walk.stride(2), static_cast<int>(p.count), s.a);
    return 0;
  }
};

/// x - v is x + (-v).
struct shift_op : reads_x {
  tensor_data y;
  float const* value;
  bool subtract;

  MIXBIT_HD std::uint64_t write(nest<2> const& walk, place<2> const& p, state& s) const {
    for_groups(walk, p, [&](int i, std::int64_t group) { s.v[i] += subtract ? -value[group] : value[group]; });
    store_octet(y.type, y.data, p.offset[1], walk.stride(1), static_cast<int>(p.count), s.v);
    return 0;
  }
};

/// A "group" is one index along the axis.
struct scale_channels_op : reads_x {
  tensor_data y;
  float const* scale;
  divider period;

  MIXBIT_HD std::uint64_t write(nest<2> const& walk, place<2> const& p, state& s) const {
    for_groups(walk, p, [&](int i, std::int64_t index) {
      std::int64_t const channel = index - period.quotient(index) * period.divisor();
      s.v[i] = fp::mul(s.v[i], scale[channel]);
    });
    store_octet(y.type, y.data, p.offset[1], walk.stride(1), static_cast<int>(p.count), s.v);
    return 0;
  }
};

}  // namespace mixbit::cuda
