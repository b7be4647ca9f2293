// The codes of an encoded weight (io/hf_encoding.hpp) one by one, for files that pack them otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "mixbit/formats/packing.hpp"

namespace mixbit::detail {

/// Codes of up to 8 bits, by their number in the row-major order of the weight's axes.
class code_view {
 public:
  code_view(element_type const& e, geometry const& weight, std::span<std::uint8_t const> codes)
      : layout_{formats::storage_packing(e)},
        bits_{e.bits},
        columns_{weight.rank == 0 ? 1 : weight.shape[weight.rank - 1]},
        size_{weight.size()},
        placed_{formats::code_matrix_of(layout_, weight)},
        codes_{codes} {}

  std::int64_t size() const { return size_; }
  /// As a matrix: the leading axes together by the last.
  std::int64_t columns() const { return columns_; }
  std::int64_t rows() const { return columns_ == 0 ? 0 : size_ / columns_; }

  /// Bits above the code's own are zero.
  std::uint8_t operator[](std::int64_t index) const {
    return at(index / placed_.columns, index % placed_.columns);
  }
  std::uint8_t operator()(std::int64_t row, std::int64_t column) const {
    if (placed_.columns == columns_) return at(row, column);  // as a rule, and without a division
    return (*this)[row * columns_ + column];
  }

 private:
  /// Of the matrix that the codes are laid out by.
  std::uint8_t at(std::int64_t row, std::int64_t column) const {
    auto const place = formats::place_of(layout_, bits_, placed_, row, column);
    unsigned const byte = codes_[static_cast<std::size_t>(place.byte)];
    return static_cast<std::uint8_t>((byte >> place.shift) & ((1u << bits_) - 1u));
  }

  packing layout_;
  int bits_;
  std::int64_t columns_, size_;
  formats::code_matrix placed_;
  std::span<std::uint8_t const> codes_;
};

}  // namespace mixbit::detail
