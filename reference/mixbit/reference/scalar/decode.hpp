// y from codes and scales, over the same tiles as encode.
#pragma once

#include "mixbit/reference/scalar/encode.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// Reads `n` codes of one row, as code numbers.
inline void read_codes(decode_args const& a, formats::code_matrix const& m, std::int64_t row, std::int64_t column,
                       std::int64_t n, int* codes) {
  element_type const& e = a.how.element;
  if (a.how.layout == packing::bytes && e.bits <= 8) {
    std::uint8_t const* const in = a.codes + row * m.columns + column;
    bool const is_signed = e.kind == element_kind::integer && !e.is_unsigned;
    for (std::int64_t i = 0; i < n; ++i) codes[i] = is_signed ? static_cast<std::int8_t>(in[i]) : in[i];
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    auto const place = formats::place_of(a.how.layout, e.bits, m, row, column + i);
    codes[i] = formats::read_code(a.codes, a.how.layout, e, place);
  }
}

template <class Rule>
void decode_codes(executor_ref const& threads, decode_args const& a, Rule const rule) {
  code_walk const walk{a.how.layout, a.y, a.groups};
  auto const& m = walk.matrix();
  float const tensor_scale = a.tensor_scale ? *a.tensor_scale : 1.0f;
  for_code_tiles(
      threads, a.how.layout, m, [&](std::int64_t row, std::int64_t column, std::int64_t rows, std::int64_t n) {
        int codes[tile_width];
        float buffer[tile_width];
        for (std::int64_t r = row; r < row + rows; ++r) {
          read_codes(a, m, r, column, n, codes);
          walk.runs(
              r * m.columns + column, n,
              [&](std::int64_t at, std::int64_t offset, std::int64_t stride, std::int64_t group, std::int64_t length) {
                float const scale = rule.effective(read_scale(a.how.scale_type, a.scales, group), tensor_scale);
                float* const result = row_target(a.y, offset, stride, buffer);
                for (std::int64_t i = 0; i < length; ++i) result[i] = rule.decode(scale, codes[at + i]);
                store_row(a.y, offset, stride, length, result);
              });
        }
      });
}

inline void decode(executor_ref const& threads, decode_args const& a) {
  formats::visit_rule(a.how, {a.y.type}, [&](auto const& rule) { decode_codes(threads, a, rule); });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
