#include <doctest/doctest.h>

#include <vector>

#include "mixbit/io/code_view.hpp"

using namespace mixbit;

TEST_CASE("code_view: every packing gives each code by its number in row-major order, also of rank 3") {
  for (auto const& e : {integer_element(8), integer_element(4), e2m1_element, e4m3_element, integer_element(4, true)}) {
    geometry const g = dense_geometry(dtype::f32, {3, 2, 5});
    auto const layout = formats::storage_packing(e);
    auto const matrix = formats::code_matrix_of(layout, g);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(formats::payload_bytes(layout, e.bits, matrix)));
    auto const code = [&](std::int64_t i) { return static_cast<std::uint8_t>((i * 7 + 3) & ((1 << e.bits) - 1)); };
    for (std::int64_t r = 0; r < matrix.rows; ++r)
      for (std::int64_t c = 0; c < matrix.columns; ++c) {
        auto const place = formats::place_of(layout, e.bits, matrix, r, c);
        bytes[place.byte] = static_cast<std::uint8_t>(bytes[place.byte] | code(r * matrix.columns + c) << place.shift);
      }
    detail::code_view const view{e, g, bytes};
    CHECK(view.size() == 30);
    CHECK(view.rows() == 6);
    for (std::int64_t i = 0; i < view.size(); ++i) CHECK(view[i] == code(i));
    CHECK(view(5, 4) == code(29));
  }
}
