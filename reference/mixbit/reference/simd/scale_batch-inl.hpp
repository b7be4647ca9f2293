// The scales of a batch of groups: their amax, what the file holds of them, and what their elements are scaled with.
// needs: <hwy/highway.h>
#include "mixbit/reference/simd/quotients-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_SCALE_BATCH_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_SCALE_BATCH_INL
#undef MIXBIT_REFERENCE_SIMD_SCALE_BATCH_INL
#else
#define MIXBIT_REFERENCE_SIMD_SCALE_BATCH_INL
#endif

#if MIXBIT_SIMD_VECTORS

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

/// The groups that are prepared together, and the elements that they have at most (if more than one): few enough that
/// one batch is read from memory while the one before it is computed and stored.
inline constexpr std::int64_t batch_groups = 64, batch_elements = 1024;

struct scale_batch {
  HWY_ALIGN float amax[batch_groups] = {};
  HWY_ALIGN float file[batch_groups];
  HWY_ALIGN float forward[batch_groups];
  HWY_ALIGN float backward[batch_groups];
  HWY_ALIGN std::uint32_t keep[batch_groups];

  HWY_INLINE void set(std::int64_t i, vector_scaling const& s) {
    hn::Store(s.forward, float_tag{}, forward + i);
    hn::Store(s.backward, float_tag{}, backward + i);
    hn::Store(s.keep, word_tag{}, keep + i);
  }
  void set(std::int64_t i, formats::scaling const& s) {
    forward[i] = s.forward;
    backward[i] = s.backward;
    keep[i] = s.keep;
  }
  /// Of group i, for all lanes.
  HWY_INLINE vector_scaling of(std::int64_t i) const { return {splat(forward[i]), splat(backward[i]), splat(keep[i])}; }
};

/// What the groups' amax make of their elements.
template <class Rule>
HWY_INLINE void prepare(vector_rule<Rule> const& rule, scale_batch& b, std::int64_t n) {
  if constexpr (requires(floats v) { rule.prepare(v); }) {
    for (std::int64_t i = 0; i < n; i += lanes) b.set(i, rule.prepare(hn::Load(float_tag{}, b.amax + i)));
  } else {
    for (std::int64_t i = 0; i < n; ++i) b.set(i, rule.scalar.prepare(b.amax[i]));
  }
}

/// The scales of the groups as the file holds them.
template <class Rule>
HWY_INLINE void make_file_scales(vector_rule<Rule> const& rule, scale_batch& b, std::int64_t n) {
  if constexpr (requires(floats v) { rule.file_scale(v); }) {
    for (std::int64_t i = 0; i < n; i += lanes)
      hn::Store(rule.file_scale(hn::Load(float_tag{}, b.amax + i)), float_tag{}, b.file + i);
  } else {
    for (std::int64_t i = 0; i < n; ++i) b.file[i] = rule.scalar.file_scale(b.amax[i]);
  }
}

/// What scales of the file make of the elements.
template <class Rule>
HWY_INLINE void prepare_of_file(vector_rule<Rule> const& rule, scale_batch& b, std::int64_t n) {
  if constexpr (requires(floats v) { rule.of_scale(v); }) {
    for (std::int64_t i = 0; i < n; i += lanes) b.set(i, rule.of_scale(hn::Load(float_tag{}, b.file + i)));
  } else {
    for (std::int64_t i = 0; i < n; ++i) b.set(i, rule.scalar.of_scale(b.file[i]));
  }
}

/// Have the first n groups a scale, with which no number becomes NaN? (ModelOpt's may be infinite.)
HWY_INLINE bool have_scales(scale_batch const& b, std::int64_t n) {
  std::uint32_t kept = 0xffffffffu, finite = 1;
  for (std::int64_t i = 0; i < n; ++i) {
    kept &= b.keep[i];
    finite &= static_cast<std::uint32_t>(fp::is_finite(b.forward[i]));
  }
  return (kept & finite) != 0;
}

/// Are the elements of a batch, groups of `block`, divided by_products? Those of a long group are.
template <class Rule>
HWY_INLINE bool divides_by_products(vector_rule<Rule> const& rule, scale_batch const& b, std::int64_t block) {
  if constexpr (has_products<Rule>)
    return block >= batch_elements && b.keep[0] != 0 && by_products<Rule>::holds(rule, b.forward[0]);
  return false;
}

/// What a rule scales the elements of group i with, in all lanes.
template <class Rule>
HWY_INLINE auto scaling_of(Rule const& rule, scale_batch const& b, std::int64_t i) {
  if constexpr (requires { rule.scaling(b.of(i)); }) return rule.scaling(b.of(i));
  else return b.of(i);
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
#endif
