#include "mixbit/formats/packing.hpp"

#include <vector>

#include <doctest/doctest.h>

using namespace mixbit;
using namespace mixbit::formats;

namespace {
std::vector<std::uint8_t> pack(packing layout, element_type const& e, code_matrix m, std::vector<int> const& codes) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(payload_bytes(layout, e.bits, m)), 0);
  for (std::int64_t i = 0; i < m.rows * m.columns; ++i)
    write_code(bytes.data(), layout, e, place_of(layout, e.bits, m, i / m.columns, i % m.columns),
               codes[static_cast<std::size_t>(i)]);
  return bytes;
}
using bytes = std::vector<std::uint8_t>;
}  // namespace

TEST_CASE("the layout of each element in a file") {
  CHECK(storage_packing(integer_element(8)) == packing::bytes);
  CHECK(storage_packing(integer_element(16)) == packing::bytes);
  CHECK(storage_packing(e4m3_element) == packing::bytes);
  CHECK(storage_packing(nf4_element) == packing::nibbles_high_first);
  CHECK(storage_packing(integer_element(4)) == packing::nibbles_row_pairs);
  CHECK(storage_packing(integer_element(4, true)) == packing::dense_rows);
  CHECK(storage_packing(integer_element(3)) == packing::dense_rows);
  CHECK(storage_packing(e2m1_element) == packing::dense_rows);
}

TEST_CASE("known bytes of each layout") {
  element_type const int4 = integer_element(4);
  CHECK(pack(packing::bytes, int4, {1, 3}, {-8, 0, 7}) == bytes{0xf8, 0x00, 0x07});
  CHECK(pack(packing::dense_rows, int4, {2, 3}, {1, 2, 3, -1, -2, -3}) == bytes{0x21, 0x03, 0xef, 0x0d});
  CHECK(pack(packing::dense_rows, integer_element(3), {1, 3}, {1, 2, -1}) == bytes{0xd1, 0x01});  // 111 010 001
  CHECK(pack(packing::nibbles_high_first, int4, {2, 2}, {-8, 7, 0, 1}) == bytes{0x0f, 0x89});
  CHECK(pack(packing::nibbles_row_pairs, int4, {2, 3}, {1, 2, 3, -1, -2, -3}) == bytes{0xf1, 0xe2, 0xd3});
  CHECK(pack(packing::nibbles_row_pairs, int4, {3, 2}, {1, 2, 3, 4, -1, -2}) == bytes{0x31, 0x42, 0x0f, 0x0e});
  CHECK(pack(packing::bytes, e4m3_element, {1, 2}, {0xfe, 0x7f}) == bytes{0xfe, 0x7f});
}

TEST_CASE("every code of every element survives, at every position of a row") {
  for (packing const layout :
       {packing::bytes, packing::dense_rows, packing::nibbles_high_first, packing::nibbles_row_pairs})
    for (int bits = 1; bits <= 8; ++bits)
      for (bool const is_unsigned : {false, true}) {
        bool const nibbles = layout == packing::nibbles_high_first || layout == packing::nibbles_row_pairs;
        if ((nibbles && bits != 4) || (layout == packing::nibbles_high_first && is_unsigned)) continue;
        element_type const e = integer_element(bits, is_unsigned);
        int const low = is_unsigned ? 0 : -(1 << (bits - 1));
        code_matrix const m{3, 19};
        std::vector<int> codes;
        for (int i = 0; i < 57; ++i) codes.push_back(low + i * 7 % (1 << bits));
        auto const packed = pack(layout, e, m, codes);
        int wrong = 0;
        for (int i = 0; i < 57; ++i)
          wrong += read_code(packed.data(), layout, e, place_of(layout, bits, m, i / 19, i % 19)) !=
                   codes[static_cast<std::size_t>(i)];
        CAPTURE(bits);
        CHECK(wrong == 0);
      }
}

TEST_CASE("rows of a code matrix are the leading axes, of row pairs axis 0") {
  geometry const g = dense_geometry(dtype::f32, {4, 3, 5});
  CHECK(code_matrix_of(packing::bytes, g).rows == 12);
  CHECK(code_matrix_of(packing::nibbles_row_pairs, g).rows == 4);
  CHECK(code_matrix_of(packing::nibbles_row_pairs, g).columns == 15);
  CHECK(code_matrix_of(packing::dense_rows, dense_geometry(dtype::f32, {})).columns == 1);
}
