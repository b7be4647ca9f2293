// The exact size of an encoded tensor: what `encode` writes, to the byte.
#pragma once

#include "mixbit/core/partition.hpp"
#include "mixbit/formats/double_quantization.hpp"
#include "mixbit/formats/packing.hpp"

namespace mixbit {

struct storage_size {
  std::int64_t payload = 0;  ///< bytes of the codes, padding included
  std::int64_t scales = 0;   ///< bytes of the scales, in the type in which the file holds them
  std::int64_t tensor = 0;  ///< bytes of what a tensor holds once: the scale of two levels, the scales' mean

  constexpr std::int64_t bytes() const { return payload + scales + tensor; }
  constexpr std::int64_t bits() const { return 8 * bytes(); }
  friend constexpr bool operator==(storage_size const&, storage_size const&) = default;
};

/// Bytes of `g` in the format `how` with one scale for each group of `groups`. Double quantization holds a byte a
/// scale, a scale for each block of them, and their mean.
constexpr storage_size storage_size_of(format const& how, geometry const& g, partition const& groups) {
  std::int64_t const count = groups.group_count(), width = static_cast<std::int64_t>(size_of(how.scale_type));
  auto const matrix = formats::code_matrix_of(how.layout, g);
  std::int64_t const payload = formats::payload_bytes(how.layout, how.element.bits, matrix);
  if (how.scale_block > 0) {
    std::int64_t const blocks = (count + how.scale_block - 1) / how.scale_block;
    return {payload, double_scale_codes(how, count) + blocks * width, width};
  }
  return {payload, count * width, is_two_level(how.scaling) ? static_cast<std::int64_t>(sizeof(float)) : 0};
}

/// The shape that ModelOpt gives an amax.
struct amax_shape {
  int rank = 0;
  std::array<std::int64_t, 2 * max_rank> size{};

  constexpr std::span<std::int64_t const> sizes() const& { return {size.data(), static_cast<std::size_t>(rank)}; }
  void sizes() const&& = delete;  // would point into a temporary
};

/// One element is 0-d; reduced axes stay as 1; blocks of the last axis alone are [blocks, 1], all other axes in the
/// first; blocks of other or several axes keep a 1 behind each ([R/b,1,C/b,1]). `blocks` are the block sizes from which
/// `groups` was made (a whole axis is no block), empty if it was made from kept axes.
constexpr amax_shape amax_shape_of(geometry const& g, partition const& groups,
                                   std::span<axis_block const> blocks = {}) {
  amax_shape shape;
  if (groups.group_count() == 1) return shape;
  bool blocked[max_rank] = {};
  int count = 0;
  for (auto const& b : blocks)
    if (b.size) {
      blocked[b.axis < 0 ? b.axis + g.rank : b.axis] = true;
      ++count;
    }
  if (count == 1 && blocked[g.rank - 1]) {
    shape.size[shape.rank++] = groups.group_count();
    shape.size[shape.rank++] = 1;
    return shape;
  }
  for (int a = 0; a < g.rank; ++a) {
    shape.size[shape.rank++] = groups.groups[a];
    if (blocked[a]) shape.size[shape.rank++] = 1;
  }
  return shape;
}

}  // namespace mixbit
