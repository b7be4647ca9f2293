// y from codes and scales, over the same tiles as encode.
#pragma once

#include "mixbit/reference/scalar/encode.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// Reads `n` codes of one row, as code numbers.
inline void read_codes(decode_args const& a, formats::code_matrix const& m, std::int64_t row, std::int64_t column,
                       std::int64_t n, int* codes) {
  if (a.how.layout == packing::bytes) {
    std::uint8_t const* const in = a.codes + row * m.columns + column;
    bool const is_signed = a.how.element.kind == element_kind::integer && !a.how.element.is_unsigned;
    for (std::int64_t i = 0; i < n; ++i) codes[i] = is_signed ? static_cast<std::int8_t>(in[i]) : in[i];
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    auto const place = formats::place_of(a.how.layout, a.how.element.bits, m, row, column + i);
    codes[i] = formats::read_code(a.codes, a.how.layout, a.how.element, place);
  }
}

template <class T, class S, class Rule>
void decode_codes(executor_ref const& threads, decode_args const& a, Rule const& rule) {
  code_walk const walk{a.how.layout, a.y, a.groups};
  auto const& m = walk.matrix();
  for_code_tiles(
      threads, a.how.layout, m, [&](std::int64_t row, std::int64_t column, std::int64_t rows, std::int64_t n) {
        int codes[tile_width];
        for (std::int64_t r = row; r < row + rows; ++r) {
          read_codes(a, m, r, column, n, codes);
          walk.runs(
              r * m.columns + column, n,
              [&](std::int64_t at, std::int64_t offset, std::int64_t stride, std::int64_t group, std::int64_t length) {
                float const scale = read_scale<S>(a.scales, group);
                T* const y = a.y.as<T>() + offset;
                for (std::int64_t i = 0; i < length; ++i) y[i * stride] = rule.decode(scale, codes[at + i]);
              });
        }
      });
}

inline void decode(executor_ref const& threads, decode_args const& a) {
  visit_compute(a.y.type, [&]<class T>(T) {
    formats::visit_rule<T>(a.how, [&](auto const& rule) {
      visit_compute(a.how.scale_type, [&]<class S>(S) { decode_codes<T, S>(threads, a, rule); });
    });
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
