// The codes of an encoded weight (io/hf_encoding.hpp) one by one, for files that pack them otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
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

  /// A row's codes, a byte each. Common layouts in loops that compilers make vectors of: code by code, packing took
  /// twice the time of encoding.
  void copy_row(std::int64_t row, std::uint8_t* to) const {
    bool const same_rows = placed_.columns == columns_;
    auto const* const from = codes_.data();
    if (same_rows && layout_ == packing::bytes) {
      std::memcpy(to, from + row * columns_, static_cast<std::size_t>(columns_));
    } else if (same_rows && layout_ == packing::nibbles_row_pairs) {
      auto const* const pair = from + row / 2 * columns_;
      int const shift = row % 2 == 0 ? 0 : 4;
      for (std::int64_t c = 0; c < columns_; ++c) to[c] = static_cast<std::uint8_t>(pair[c] >> shift & 15);
    } else if (same_rows && layout_ == packing::dense_rows && bits_ == 4) {
      auto const* const pairs = from + row * ((columns_ + 1) / 2);
      for (std::int64_t c = 0; c + 1 < columns_; c += 2) {
        to[c] = static_cast<std::uint8_t>(pairs[c / 2] & 15);
        to[c + 1] = static_cast<std::uint8_t>(pairs[c / 2] >> 4);
      }
      if (columns_ % 2 != 0) to[columns_ - 1] = static_cast<std::uint8_t>(pairs[columns_ / 2] & 15);
    } else {
      for (std::int64_t c = 0; c < columns_; ++c) to[c] = (*this)(row, c);
    }
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
