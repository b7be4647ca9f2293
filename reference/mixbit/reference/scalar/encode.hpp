// Codes and scales of a tensor as a file holds them, and back.
//
// Both walk the matrix of codes (formats/packing.hpp) in tiles of 16 rows by 256 columns, so that a column-major
// tensor is read a cache line at a time too. A tile's stretch of a row starts at a byte, so no byte has two writers.
#pragma once

#include <cassert>

#include "mixbit/core/kernel_args.hpp"
#include "mixbit/formats/packing.hpp"
#include "mixbit/formats/rules.hpp"
#include "mixbit/reference/scalar/flags.hpp"
#include "mixbit/reference/scalar/scales.hpp"
#include "mixbit/reference/traverse.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels {

/// Where the elements of a code matrix are, and in which group.
class code_walk {
 public:
  code_walk(packing layout, geometry const& g, partition const& groups)
      : g_{g}, groups_{groups}, matrix_{formats::code_matrix_of(layout, g)} {}

  formats::code_matrix const& matrix() const { return matrix_; }

  /// Calls f(index, offset, stride, group, length) for runs of consecutive codes that share a group, from flat code
  /// `first` on; index counts from 0.
  template <class F>
  void runs(std::int64_t first, std::int64_t length, F&& f) const {
    for (std::int64_t done = 0; done < length;) {
      std::int64_t const n = run_at(first + done, length - done, [&](auto... parts) { f(done, parts...); });
      done += n;
    }
  }

 private:
  template <class F>
  std::int64_t run_at(std::int64_t flat, std::int64_t most, F&& f) const {
    std::int64_t offset = 0, group = 0, group_step = 1, n = 1, stride = 0;
    for (int a = g_.rank - 1; a >= 0; --a) {
      std::int64_t const i = flat % g_.shape[a], block = groups_.block[a];
      flat /= g_.shape[a];
      if (a == g_.rank - 1) {
        n = std::min({most, g_.shape[a] - i, block - i % block});
        stride = g_.stride[a];
      }
      offset += i * g_.stride[a];
      group += i / block * group_step;
      group_step *= groups_.groups[a];
    }
    f(offset, stride, group, n);
    return n;
  }

  geometry const& g_;
  partition const& groups_;
  formats::code_matrix matrix_;
};

/// Calls tile(row, column, rows, columns) for all tiles of a code matrix, each once.
template <class F>
void for_code_tiles(executor_ref const& threads, packing layout, formats::code_matrix m, F&& tile) {
  constexpr std::int64_t rows = 16;
  // the flat layout has no rows: nibbles of two logical rows may share a byte
  if (layout == packing::nibbles_high_first) m = {1, m.rows * m.columns};
  if (m.rows == 0 || m.columns == 0) return;
  std::int64_t const across = (m.columns + tile_width - 1) / tile_width, down = (m.rows + rows - 1) / rows;
  std::int64_t const per_piece = std::max<std::int64_t>(1, piece_elements / (tile_width * std::min(rows, m.rows)));
  for_pieces(threads, (across * down + per_piece - 1) / per_piece, [&](std::int64_t piece) {
    for (std::int64_t t = piece * per_piece; t < std::min((piece + 1) * per_piece, across * down); ++t) {
      std::int64_t const r = t / across * rows, c = t % across * tile_width;
      tile(r, c, std::min(rows, m.rows - r), std::min(tile_width, m.columns - c));
    }
  });
}

/// Writes `n` codes of one row from a column that is a multiple of 8: whole bytes, the rest of the last one zero.
inline void write_dense(std::uint8_t* out, element_type const& e, std::int16_t const* codes, std::int64_t n) {
  std::uint32_t pending = 0;
  int held = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    pending |= formats::stored_bits(packing::dense_rows, e, codes[i]) << held;
    for (held += e.bits; held >= 8; held -= 8, pending >>= 8) *out++ = static_cast<std::uint8_t>(pending);
  }
  if (held > 0) *out = static_cast<std::uint8_t>(pending);
}

/// Writes one row of a tile. `below` is the second row of a pair, null where there is none.
inline void write_codes(encode_args const& a, formats::code_matrix const& m, std::int64_t row, std::int64_t column,
                        std::int16_t const* codes, std::int16_t const* below, std::int64_t n) {
  element_type const& e = a.how.element;
  auto const place = formats::place_of(a.how.layout, e.bits, m, row, column);
  std::uint8_t* const out = a.codes + place.byte;
  auto const nibble = [&](int code) { return formats::stored_bits(a.how.layout, e, code); };
  int const filler = e.kind == element_kind::lookup ? formats::nf4_zero : 0;
  switch (a.how.layout) {
    case packing::bytes:
      for (std::int64_t i = 0; i < n; ++i) {
        if (e.bits <= 8) {
          out[i] = static_cast<std::uint8_t>(codes[i]);
        } else {
          out[2 * i] = static_cast<std::uint8_t>(codes[i]);
          out[2 * i + 1] = static_cast<std::uint8_t>(codes[i] >> 8);
        }
      }
      break;
    case packing::dense_rows: write_dense(out, e, codes, n); break;
    case packing::nibbles_high_first:
      for (std::int64_t i = 0; i < n; i += 2)
        out[i / 2] = static_cast<std::uint8_t>(nibble(codes[i]) << 4 | nibble(i + 1 < n ? codes[i + 1] : filler));
      break;
    case packing::nibbles_row_pairs:
      for (std::int64_t i = 0; i < n; ++i)
        out[i] = static_cast<std::uint8_t>(nibble(codes[i]) | nibble(below ? below[i] : 0) << 4);
  }
}

/// What a group does to its elements: of its amax, or of the scale that has been written where that was chosen.
template <class Rule>
formats::scaling scaling_of_group(encode_args const& a, Rule const& rule, std::int64_t group) {
  if constexpr (formats::block_scaled<Rule>)
    if (needs_lines(rule, a.use)) return rule.of_scale(read_scale(a.how.scale_type, a.scales, group));
  return a.amax ? rule.prepare(a.amax[group]) : formats::scaling{};
}

/// The codes of consecutive elements from flat code `first` on. Returns how many of them were NaN.
template <class Rule>
std::uint64_t codes_of(encode_args const& a, Rule const rule, code_walk const& walk, std::int64_t first,
                       std::int64_t n, std::int16_t* codes) {
  std::uint64_t nan = 0;
  float buffer[tile_width];
  walk.runs(first, n,
            [&](std::int64_t at, std::int64_t offset, std::int64_t stride, std::int64_t group, std::int64_t m) {
              auto const scaling = scaling_of_group(a, rule, group);
              float const* const row = load_row(a.x, offset, stride, m, buffer);
              for (std::int64_t i = 0; i < m; ++i) {
                codes[at + i] = static_cast<std::int16_t>(rule.encode(scaling, row[i]));
                nan += fp::is_nan(row[i]);
              }
            });
  return nan;
}

template <class Rule>
void encode_codes(executor_ref const& threads, encode_args const& a, Rule const& rule) {
  code_walk const walk{a.how.layout, a.x, a.groups};
  auto const& m = walk.matrix();
  bool const pairs = a.how.layout == packing::nibbles_row_pairs;
  for_code_tiles(threads, a.how.layout, m,
                 [&](std::int64_t row, std::int64_t column, std::int64_t rows, std::int64_t n) {
                   std::int16_t codes[2][tile_width];
                   std::uint64_t nan = 0;
                   for (std::int64_t r = row; r < row + rows; r += pairs ? 2 : 1) {
                     nan += codes_of(a, rule, walk, r * m.columns + column, n, codes[0]);
                     bool const second = pairs && r + 1 < m.rows;
                     if (second) nan += codes_of(a, rule, walk, (r + 1) * m.columns + column, n, codes[1]);
                     write_codes(a, m, r, column, codes[0], second ? codes[1] : nullptr, n);
                   }
                   if (a.flags) add_flag(a.flags->nonfinite, nan);
                 });
}

inline void encode(executor_ref const& threads, encode_args const& a) {
  assert(a.amax == nullptr || a.scales != nullptr);
  if (a.how.element.is_unsigned) count_negative(threads, a.x, a.flags);
  formats::visit_rule(a.how, rule_inputs_of(a), [&](auto const& rule) {
    if (a.amax || a.use == amax_use::data) write_scales(threads, a, rule);
    encode_codes(threads, a, rule);
  });
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::scalar_kernels
