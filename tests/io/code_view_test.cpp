#include <doctest/doctest.h>

#include <vector>

#include "mixbit/io/code_view.hpp"

using namespace mixbit;

TEST_CASE("code_view: every packing gives each code by its number in row-major order, also of rank 3") {
  auto const elements = {integer_element(8), integer_element(4), e2m1_element, e4m3_element, integer_element(4, true)};
  for (int const k : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
    auto const& e = elements.begin()[k / 2];
    bool const stack = k % 2 == 0;
    geometry const g = stack ? dense_geometry(dtype::f32, {3, 2, 5}) : dense_geometry(dtype::f32, {6, 5});
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
    for (std::int64_t r = 0; r < view.rows(); ++r) {
      std::vector<std::uint8_t> row(6, 0xee);
      view.copy_row(r, row.data());
      for (std::int64_t c = 0; c < 5; ++c) CHECK(row[static_cast<std::size_t>(c)] == view(r, c));
      CHECK(row[5] == 0xee);
    }
  }
}
