// The kernels that treat elements one by one, and the score, whose order of summation is the scalar kernel's.
// needs: <hwy/highway.h>
#include "mixbit/reference/scalar/backward_mask.hpp"
#include "mixbit/reference/scalar/gradient_score.hpp"
#include "mixbit/reference/scalar/scale_channels.hpp"
#include "mixbit/reference/scalar/shift.hpp"
#include "mixbit/reference/scalar/subtract.hpp"
#include "mixbit/reference/simd/rows-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_ELEMENTWISE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_ELEMENTWISE_INL
#undef MIXBIT_REFERENCE_SIMD_ELEMENTWISE_INL
#else
#define MIXBIT_REFERENCE_SIMD_ELEMENTWISE_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

#if MIXBIT_SIMD_VECTORS

template <class T>
HWY_NOINLINE void subtract_row(T const* a, T const* b, T* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(hn::Sub(load(a + i), load(b + i)), y + i);
  if (i < n) store_some(hn::Sub(load_some(a + i, n - i), load_some(b + i, n - i)), y + i, n - i);
}

struct shifts : scalar_kernels::shifts {
  HWY_INLINE static floats apply_vector(floats x, floats v) { return hn::Add(x, v); }
};

struct channel_scales : scalar_kernels::channel_scales {
  HWY_INLINE static floats apply_vector(floats x, floats s) { return hn::Mul(x, s); }
};

/// The loops of scalar_kernels::with_group_op for contiguous rows, in the scalar operation's place.
template <class T, class Values>
struct with_group_op : scalar_kernels::with_group_op<T, Values> {
  using base = scalar_kernels::with_group_op<T, Values>;

  template <bool Unit>
  HWY_NOINLINE void run(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride,
                        std::int64_t n, float v) const {
    if constexpr (!Unit) return base::template run<false>(at, stride, n, v);
    T const* const in = this->x + at[0];
    T* const out = this->y + at[1];
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) store(Values::apply_vector(load(in + i), splat(v)), out + i);
    if (i < n) store_some(Values::apply_vector(load_some(in + i, n - i), splat(v)), out + i, n - i);
  }

  template <bool Unit>
  HWY_NOINLINE void each(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride,
                         std::int64_t n, typename base::tile const& t) const {
    if constexpr (!Unit) return base::template each<false>(at, stride, n, t);
    T const* const in = this->x + at[0];
    T* const out = this->y + at[1];
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) store(Values::apply_vector(load(in + i), load(t.value + i)), out + i);
    if (i < n)
      store_some(Values::apply_vector(load_some(in + i, n - i), load_some(t.value + i, n - i)), out + i, n - i);
  }
};

/// `grad` where |x| > limit does not hold, NaN included, and +0 elsewhere. Bits are moved, not converted.
HWY_INLINE void mask_vector(floats x, float* grad, floats limit) {
  auto const out = hn::Gt(as_floats(magnitude_of(x)), limit);
  store(hn::IfThenZeroElse(out, load(grad)), grad);
}

template <class T>
HWY_INLINE void mask_vector(floats x, T* grad, floats limit) {
  auto const out = hn::RebindMask(int_tag{}, hn::Gt(as_floats(magnitude_of(x)), limit));
  ints const kept = hn::Not(hn::VecFromMask(int_tag{}, out));
  shorts const keep = hn::BitCast(short_tag{}, hn::DemoteTo(hn::RebindToSigned<short_tag>{}, kept));
  hn::StoreU(hn::And(keep, hn::LoadU(short_tag{}, &grad->bits)), short_tag{}, &grad->bits);
}

/// limit(i): the limits of the elements from i on.
template <class T, class F>
HWY_INLINE void mask_row(T const* x, T* grad, std::int64_t n, F&& limit) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) mask_vector(load(x + i), grad + i, limit(i));
  if (i == n) return;
  HWY_ALIGN T some[static_cast<std::size_t>(lanes)] = {};
  std::memcpy(some, grad + i, static_cast<std::size_t>(n - i) * sizeof(T));
  mask_vector(load_some(x + i, n - i), some, limit(i));
  std::memcpy(grad + i, some, static_cast<std::size_t>(n - i) * sizeof(T));
}

/// scalar_kernels::mask_op in the same way.
template <class T>
struct mask_op : scalar_kernels::mask_op<T> {
  using base = scalar_kernels::mask_op<T>;

  template <bool Unit>
  HWY_NOINLINE void run(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride,
                        std::int64_t n, float limit) const {
    if constexpr (!Unit) return base::template run<false>(at, stride, n, limit);
    mask_row(this->x + at[0], this->grad + at[1], n, [&](std::int64_t) HWY_ATTR { return splat(limit); });
  }

  template <bool Unit>
  HWY_NOINLINE void each(std::array<std::int64_t, 2> const& at, std::array<std::int64_t, 2> const& stride,
                         std::int64_t n, typename base::tile const& t) const {
    if constexpr (!Unit) return base::template each<false>(at, stride, n, t);
    HWY_ALIGN float limits[tile_width + lanes];
    std::copy_n(t.amax, n, limits);
    std::fill_n(limits + n, lanes, 0.0f);
    mask_row(this->x + at[0], this->grad + at[1], n, [&](std::int64_t i) HWY_ATTR { return load(limits + i); });
  }
};

#endif

inline void subtract(executor_ref const& threads, subtract_args const& args) {
#if MIXBIT_SIMD_VECTORS
  loop_nest<3> const nest{{&args.a, &args.b, &args.y}, per_tensor(args.a)};
  if (nest.unit_stride()) {
    visit_compute(args.a.type, [&]<class T>(T) {
      for_pieces(threads, nest.pieces(), [&](std::int64_t piece) {
        nest.rows_of(piece, [&](segment<3> const& s) {
          subtract_row(args.a.as<T>() + s.offset[0], args.b.as<T>() + s.offset[1], args.y.as<T>() + s.offset[2],
                       s.length);
        });
      });
    });
    return;
  }
#endif
  scalar_kernels::subtract(threads, args);
}

inline void backward_mask(executor_ref const& threads, backward_mask_args const& a) {
#if MIXBIT_SIMD_VECTORS
  loop_nest<2> const nest{{&a.x, &a.grad}, a.groups};
  visit_compute(a.x.type, [&]<class T>(T) {
    sweep(threads, nest, mask_op<T>{{a.x.as<T>(), a.grad.as<T>(), a.amax}});
  });
#else
  scalar_kernels::backward_mask(threads, a);
#endif
}

inline void scale_channels(executor_ref const& threads, scale_channels_args const& a) {
#if MIXBIT_SIMD_VECTORS
  loop_nest<2> const nest{{&a.x, &a.y}, scalar_kernels::channels_of(a)};
  visit_compute(a.x.type, [&]<class T>(T) {
    sweep(threads, nest, with_group_op<T, channel_scales>{{a.x.as<T>(), a.y.as<T>(), {{a.scale, a.period}}}});
  });
#else
  scalar_kernels::scale_channels(threads, a);
#endif
}

inline void shift(executor_ref const& threads, shift_args const& a) {
#if MIXBIT_SIMD_VECTORS
  loop_nest<2> const nest{{&a.x, &a.y}, a.groups};
  visit_compute(a.x.type, [&]<class T>(T) {
    sweep(threads, nest, with_group_op<T, shifts>{{a.x.as<T>(), a.y.as<T>(), {{a.value, a.subtract}}}});
  });
#else
  scalar_kernels::shift(threads, a);
#endif
}

inline void gradient_score(executor_ref const& threads, gradient_score_args const& a) {
  scalar_kernels::gradient_score(threads, a);
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
