// A rotation of a tensor's last axis: which blocks, and whether the cast is followed by the way back. ModelOpt's
// `rotate`; a normalized Walsh-Hadamard matrix is its own inverse and its own transpose.
#pragma once

#include <algorithm>
#include <bit>
#include <optional>
#include <string>

#include "mixbit/config/quantizer_attribute_config.hpp"
#include "mixbit/core/tensor_view.hpp"
#include "mixbit/formats/hadamard.hpp"

namespace mixbit {

struct rotation {
  std::optional<std::int64_t> block;  ///< absent: the largest power of two that divides the width
  bool back = false;
  friend bool operator==(rotation const&, rotation const&) = default;

  /// The block for a tensor of this shape. Throws `tensor_shape`, naming the quantizer, where there is none.
  std::int64_t block_of(geometry const& x, std::string const& where) const {
    std::int64_t const width = x.rank > 0 ? x.shape[x.rank - 1] : 0;
    std::int64_t const found = block ? *block : formats::power_of_two_divisor(width);
    if (x.rank == 0 || width % std::max<std::int64_t>(found, 1) != 0)
      fail(error_id::tensor_shape, where, ": rotate.block_size ", found, " does not divide the last axis of a tensor ",
           "of shape ", to_string(x));
    if (found < 2 && width > 1)
      fail(error_id::tensor_shape, where, ": rotate: the width ", width, " has no power of two as a divisor, but ",
           "blocks are powers of two");
    if (found > formats::largest_hadamard)
      fail(error_id::tensor_shape, where, ": rotate: a block of ", found, " is above ", formats::largest_hadamard,
           "; give a smaller rotate.block_size");
    return found;
  }
};

/// What the attributes say. `rotate_fp32` changes nothing: rotations are computed in float32 and rounded once. Throws
/// `format_value`, naming the quantizer, for a block that is no power of two.
inline std::optional<rotation> rotation_of(quantizer_attribute_config const& a, std::string const& where) {
  if (!a.rotate.enable) return std::nullopt;
  auto const block = a.rotate.block_size;
  if (block && (*block < 1 || !std::has_single_bit(static_cast<std::uint64_t>(*block))))
    fail(error_id::format_value, where, ": rotate.block_size ", *block, " is not a power of two");
  return rotation{block, a.rotate.mode == rotate_mode::rotate_back};
}

}  // namespace mixbit
