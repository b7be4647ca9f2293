// Codes in words of 32 bits: one by one what the layout says, and the same whoever packs which rows.
#include "mixbit/io/ct_packing.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "mixbit/core/thread_pool.hpp"

namespace {

using namespace mixbit;

/// Runs the last piece first, and counts.
struct backwards {
  std::int64_t pieces = 0;
  void parallel_for(std::int64_t n, function_ref<void(std::int64_t)> f) {
    pieces += n;
    for (std::int64_t i = n; i-- > 0;) f(i);
  }
  int concurrency() const { return 2; }
};

/// Codes whose bytes are 1, 4, 9, ..
std::vector<std::uint8_t> some_codes(element_type const& e, geometry const& g) {
  auto const layout = formats::storage_packing(e);
  std::vector<std::uint8_t> bytes(
      static_cast<std::size_t>(formats::payload_bytes(layout, e.bits, formats::code_matrix_of(layout, g))));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>((i + 1) * (i + 1));
  return bytes;
}

}  // namespace

TEST_CASE("ct packing: each code is at its place, on any threads, at rows and columns around the pieces' ends") {
  for (int const bits : {4, 8})
    for (std::int64_t const rows : {1, 15, 16, 17, 100})
      for (std::int64_t const columns : {1, 7, 8, 9, 33}) {
        CAPTURE(bits);
        CAPTURE(rows);
        CAPTURE(columns);
        geometry const g = dense_geometry(dtype::f32, {rows, columns});
        auto const element = integer_element(bits, false, false);
        auto const bytes = some_codes(element, g);
        detail::code_view const codes{element, g, bytes};
        auto const packed = detail::ct::packed_rows(codes, bits);
        std::int64_t const stride = detail::ct::packed_words(columns, bits) * 4;
        REQUIRE(static_cast<std::int64_t>(packed.size()) == rows * stride);
        bool right = true;
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t c = 0; c < stride * 8 / bits; ++c) {
            unsigned const top = 1u << (bits - 1);
            unsigned const expected = c < columns ? codes[r * columns + c] ^ top : 0;  // its number in row-major order
            unsigned const byte = packed[static_cast<std::size_t>(r * stride + c * bits / 8)];
            right = right && (byte >> (c * bits % 8) & ((1u << bits) - 1)) == expected;
          }
        CHECK(right);
        backwards other;
        CHECK(detail::ct::packed_rows(codes, bits, other) == packed);
        CHECK(other.pieces == (rows + 15) / 16);
        thread_pool pool{3};
        CHECK(detail::ct::packed_rows(codes, bits, pool) == packed);
      }
}
