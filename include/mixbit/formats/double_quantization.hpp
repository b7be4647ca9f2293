// Double quantization: the scales of a tensor's groups as int8 codes around their mean, in blocks of
// `format::scale_block` consecutive groups (QLoRA, Dettmers et al. 2023, section 3; ModelOpt's
// NF4QTensor.double_quantization).
//
// `stored`: mean m = float32(Σ scales / n), the sum in double in the order of the groups; of each block
// s = max |scale - m| / 127 as the file holds it; code = round_half_even((scale - m) / s), within ±127;
// scale' = max(code · s + m, 0), in the type of the scales. Elements are cast with scale', so that the file holds what
// was computed.
// `modelopt_pack`: every operation rounds to the tensor's type T; s is 127 / max |scale - m|, which then divides;
// scales are padded with zeros to whole blocks, and the padding counts in the mean. Elements are cast with the scales
// from before: only decoding sees scale'. ModelOpt's mean is torch's float32 sum; this one may be a step of T away.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "mixbit/formats/rounding.hpp"

namespace mixbit {

/// The scales of one tensor as a file holds them: codes a byte each, the others in the format's scale type.
struct double_scales {
  std::vector<std::int8_t> codes;   ///< one a group, padded to whole blocks under modelopt_pack
  std::vector<float> block_scales;  ///< one a block of groups
  float mean = 0;
};

/// Codes that the scales of `groups` groups take.
constexpr std::int64_t double_scale_codes(format const& how, std::int64_t groups) {
  std::int64_t const blocks = (groups + how.scale_block - 1) / how.scale_block;
  return how.numerics == policy::modelopt_pack ? blocks * how.scale_block : groups;
}

namespace formats {

inline constexpr float double_scale_bound = 127.0f;

/// The rule for one scale, with what its block and its tensor hold.
class double_scale_rule {
 public:
  /// `type`: of the tensor, which modelopt_pack rounds to.
  MIXBIT_HD constexpr double_scale_rule(format const& how, dtype type)
      : pack_{how.numerics == policy::modelopt_pack}, type_{pack_ ? type : how.scale_type} {}

  MIXBIT_HD constexpr float mean(double sum, std::int64_t n) const {
    return n == 0 ? 0.0f : through(type_, static_cast<float>(sum / static_cast<double>(n)));
  }
  /// What is left of a scale: the float32 difference, which modelopt_pack rounds.
  MIXBIT_HD constexpr float deviation(float scale, float mean) const {
    return pack_ ? through(type_, scale - mean) : scale - mean;
  }
  /// The block's own scale from its largest |deviation|.
  MIXBIT_HD constexpr float block_scale(float largest) const {
    return through(type_, pack_ ? fp::div(double_scale_bound, largest) : fp::div(largest, double_scale_bound));
  }
  MIXBIT_HD constexpr std::int8_t code(float deviation, float block_scale) const {
    if (block_scale == 0.0f || !fp::is_finite(block_scale)) return 0;  // all scales of the block are the mean
    float const v = pack_ ? through(type_, fp::mul(deviation, block_scale)) : fp::div(deviation, block_scale);
    return static_cast<std::int8_t>(round_bounded(clamp(v, -double_scale_bound, double_scale_bound)));
  }
  MIXBIT_HD constexpr float value(std::int8_t code, float block_scale, float mean) const {
    if (pack_) return through(type_, through(type_, fp::div(code, block_scale)) + mean);
    float const v = through(type_, fp::mul(code, block_scale) + mean);
    return v > 0.0f ? v : 0.0f;
  }

 private:
  bool pack_;
  dtype type_;
};

}  // namespace formats

/// `how.scale_block` is positive. `type`: of the tensor.
inline double_scales quantize_scales(std::span<float const> scales, format const& how, dtype type) {
  formats::double_scale_rule const rule{how, type};
  auto const count = static_cast<std::size_t>(double_scale_codes(how, static_cast<std::int64_t>(scales.size())));
  auto const block = static_cast<std::size_t>(how.scale_block);
  double sum = 0;
  for (float const s : scales) sum += s;
  double_scales q{std::vector<std::int8_t>(count), {}, rule.mean(sum, static_cast<std::int64_t>(count))};
  auto const deviation = [&](std::size_t g) { return rule.deviation(g < scales.size() ? scales[g] : 0.0f, q.mean); };
  for (std::size_t first = 0; first < count; first += block) {
    std::size_t const last = std::min(first + block, count);
    float largest = 0;
    for (std::size_t g = first; g < last; ++g) largest = std::max(largest, fp::abs(deviation(g)));
    q.block_scales.push_back(rule.block_scale(largest));
    for (std::size_t g = first; g < last; ++g) q.codes[g] = rule.code(deviation(g), q.block_scales.back());
  }
  return q;
}

/// The scales of `groups` groups that a file's codes stand for.
inline std::vector<float> scale_values(double_scales const& q, format const& how, dtype type, std::size_t groups) {
  formats::double_scale_rule const rule{how, type};
  std::vector<float> values(groups);
  for (std::size_t g = 0; g < groups; ++g)
    values[g] = rule.value(q.codes[g], q.block_scales[g / static_cast<std::size_t>(how.scale_block)], q.mean);
  return values;
}

}  // namespace mixbit
