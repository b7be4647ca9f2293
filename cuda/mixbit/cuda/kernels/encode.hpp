// Codes and scales of a tensor as a file holds them, and back, octet by octet of the matrix of codes
// (formats/packing.hpp). An octet starts at a byte in every layout, so no byte has two writers.
#pragma once

#include "mixbit/cuda/codes.hpp"
#include "mixbit/cuda/kernels/sweep.hpp"

namespace mixbit::cuda {

/// Where the element of a flat number in row-major order lies, and in which group.
class code_map {
 public:
  /// A stretch of consecutive numbers in one group, at one stride.
  struct run {
    std::int64_t offset = 0, group = 0, length = 1;
  };

  code_map() = default;
  code_map(geometry const& g, partition const& groups) {
    std::int64_t group_stride = 1;
    for (int a = g.rank - 1; a >= 0; --a) {  // innermost first
      if (g.shape[a] == 1) continue;
      if (!(rank_ > 0 && absorbs(g, groups, a, group_stride)))
        axes_[rank_++] = {divider{positive(g.shape[a])}, divider{positive(groups.block[a])}, group_stride, g.stride[a]};
      group_stride *= groups.groups[a];
    }
    if (rank_ == 0) axes_[rank_++] = {divider{1}, divider{1}, 0, 0};
  }

  MIXBIT_HD std::int64_t stride() const { return axes_[0].stride; }

  MIXBIT_HD run locate(std::int64_t flat) const {
    run r;
    for (int a = 0; a < rank_; ++a) {
      axis const& x = axes_[a];
      std::int64_t const rest = x.by_size.quotient(flat), i = flat - rest * x.by_size.divisor();
      std::int64_t const block = x.by_block.quotient(i);
      if (a == 0) {
        std::int64_t const of_axis = x.by_size.divisor() - i, of_block = (block + 1) * x.by_block.divisor() - i;
        r.length = of_axis < of_block ? of_axis : of_block;
      }
      r.offset += i * x.stride;
      r.group += block * x.group_stride;
      flat = rest;
    }
    return r;
  }

 private:
  struct axis {
    divider by_size, by_block;
    std::int64_t group_stride = 0, stride = 0;
  };

  static std::int64_t positive(std::int64_t n) { return n > 0 ? n : 1; }

  /// Makes the outermost axis so far one with axis a, where memory and groups both continue.
  bool absorbs(geometry const& g, partition const& groups, int a, std::int64_t group_stride) {
    axis& in = axes_[rank_ - 1];
    std::int64_t const size = in.by_size.divisor(), block = in.by_block.divisor();
    if (g.shape[a] == 0 || g.stride[a] != size * in.stride) return false;
    bool const reduced = block >= size;
    bool const blocks_continue =
        groups.block[a] == 1 && size % block == 0 && group_stride == size / block * in.group_stride;
    if (!reduced && !blocks_continue) return false;
    if (reduced) {
      std::int64_t const own = groups.block[a] < g.shape[a] ? groups.block[a] : g.shape[a];
      in = {divider{size * g.shape[a]}, divider{own * size}, group_stride, in.stride};
    } else {
      in.by_size = divider{size * g.shape[a]};
    }
    return true;
  }

  axis axes_[max_rank]{};
  int rank_ = 0;
};

/// The octets of a matrix of codes: all rows, or pairs of them.
struct code_octets {
  formats::code_matrix matrix;
  bool pairs = false;
  divider across;           ///< octets of a row
  std::int64_t units = 0;
  std::int64_t row_bytes = 0;
  int octet_bits = 0;       ///< of one row of an octet, padding left out

  struct at {
    std::int64_t row = 0, column = 0, byte = 0;
    int count = 0;
  };

  code_octets() = default;
  code_octets(format const& how, geometry const& g) : matrix{formats::code_matrix_of(how.layout, g)} {
    pairs = how.layout == packing::nibbles_row_pairs;
    // the flat layout has no rows: nibbles of two logical rows may share a byte
    if (how.layout == packing::nibbles_high_first) matrix = {1, matrix.rows * matrix.columns};
    std::int64_t const octets = (matrix.columns + octet - 1) / octet;
    across = divider{octets > 0 ? octets : 1};
    units = octets * (pairs ? (matrix.rows + 1) / 2 : matrix.rows);
    row_bytes = how.layout == packing::nibbles_high_first ? 0
                : pairs ? matrix.columns
                        : formats::row_bytes(how.layout, how.element.bits, matrix.columns);
    octet_bits = pairs ? 64 : octet * code_form{how.layout, how.element}.width();
  }

  MIXBIT_HD at locate(std::int64_t unit) const {
    std::int64_t const line = across.quotient(unit), o = unit - line * across.divisor();
    std::int64_t const column = o * octet, left = matrix.columns - column;
    int const count = left < octet ? static_cast<int>(left) : octet;
    return {pairs ? 2 * line : line, column, line * row_bytes + o * (octet_bits / 8), count};
  }
  MIXBIT_HD bool has_second(at const& a) const { return pairs && a.row + 1 < matrix.rows; }
};

template <class Rule>
struct encode_codes {
  code_octets octets;
  code_map map;
  const_tensor_data x;
  float const* amax;         ///< null: no scale, or that of the file
  void const* file_scales;   ///< where they decide: chosen by an earlier kernel; else null
  dtype scale_type;
  float const* tensor_amax;
  Rule rule;
  code_form form;
  std::uint8_t* codes;
  std::uint64_t *nan, *negative;  ///< may be null

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    Rule const own = rule_for(rule, tensor_amax);
    at.each([&](int thread) {
      tally found;
      for_stretches(at, octets.units, at.threads(), [&](std::int64_t first) {
        if (first + thread < octets.units) encode_octet(own, octets.locate(first + thread), found);
      });
      note(at, nan, found.nan);
      note(at, negative, found.negative);
    });
  }

 private:
  struct tally {
    std::uint64_t nan = 0, negative = 0;
  };

  MIXBIT_HD formats::scaling scaling_of(Rule const& own, std::int64_t group) const {
    if constexpr (formats::block_scaled<Rule>)
      if (file_scales) return own.of_scale(read_scale(scale_type, file_scales, group));
    return amax ? own.prepare(amax[group]) : formats::scaling{};
  }

  MIXBIT_HD void encode_octet(Rule const& own, code_octets::at const& where, tally& found) const {
    packed_codes packed;
    int const rows = octets.has_second(where) ? 2 : 1;
    MIXBIT_CUDA_ROLL
    for (int r = 0; r < rows; ++r) put_row(own, where.row + r, where, 4 * r, packed, found);
    form.fill(packed, where.count);
    write_bytes(codes + where.byte, packed, form.bytes_of(where.count));
  }

  MIXBIT_HD void put_row(Rule const& own, std::int64_t row, code_octets::at const& where, int shift,
                         packed_codes& packed, tally& found) const {
    std::int64_t const flat = row * octets.matrix.columns + where.column;
    auto const run = map.locate(flat);
    if (run.length >= where.count) {
      float v[octet];
      load_octet(x.type, x.data, run.offset, map.stride(), where.count, v);
      auto const s = scaling_of(own, run.group);
      MIXBIT_CUDA_UNROLL
      for (int i = 0; i < octet; ++i)
        if (i < where.count) packed.put(form.bit_of(i) + shift, form.stored(own.encode(s, v[i])));
      if (nan) found.nan += count_nan(v);
      if (negative) found.negative += count_negative(v);
      return;
    }
    MIXBIT_CUDA_ROLL
    for (int i = 0; i < where.count; ++i) {
      auto const one = map.locate(flat + i);
      float const v = load_one(x.type, x.data, one.offset);
      packed.put(form.bit_of(i) + shift, form.stored(own.encode(scaling_of(own, one.group), v)));
      found.nan += fp::is_nan(v) ? 1 : 0;
      found.negative += v < 0.0f ? 1 : 0;
    }
  }
};

/// The scales of given amaxes.
template <class Rule>
struct encode_scales {
  float const* amax;
  float const* tensor_amax;
  Rule rule;
  dtype scale_type;
  void* scales;  ///< null: only the tensor's
  std::int64_t count;
  float* tensor_scale;

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    Rule const own = rule_for(rule, tensor_amax);
    at.each([&](int thread) {
      if constexpr (requires { own.tensor_scale(); })
        if (tensor_scale && at.block() == 0 && thread == 0) *tensor_scale = own.tensor_scale();
      for_stretches(at, scales ? count : 0, at.threads(), [&](std::int64_t first) {
        std::int64_t const group = first + thread;
        if (group < count) write_scale(scale_type, scales, group, own.file_scale(amax[group]));
      });
    });
  }
};

template <class Rule>
struct decode_codes {
  code_octets octets;
  code_map map;
  std::uint8_t const* codes;
  void const* scales;
  dtype scale_type;
  float const* tensor_scale;  ///< null: 1
  Rule rule;
  code_form form;
  tensor_data y;

  template <class Context>
  MIXBIT_HD void operator()(Context& at) const {
    float const of_tensor = tensor_scale ? *tensor_scale : 1.0f;
    at.each([&](int thread) {
      for_stretches(at, octets.units, at.threads(), [&](std::int64_t first) {
        if (first + thread >= octets.units) return;
        auto const where = octets.locate(first + thread);
        auto const packed = read_bytes(codes + where.byte, form.bytes_of(where.count));
        int const rows = octets.has_second(where) ? 2 : 1;
        MIXBIT_CUDA_ROLL
        for (int r = 0; r < rows; ++r) decode_row(where.row + r, where, 4 * r, packed, of_tensor);
      });
    });
  }

 private:
  MIXBIT_HD float scale_of(std::int64_t group, float of_tensor) const {
    return rule.effective(read_scale(scale_type, scales, group), of_tensor);
  }

  MIXBIT_HD void decode_row(std::int64_t row, code_octets::at const& where, int shift, packed_codes const& packed,
                            float of_tensor) const {
    std::int64_t const flat = row * octets.matrix.columns + where.column;
    auto const run = map.locate(flat);
    float v[octet];
    if (run.length >= where.count) {
      float const scale = scale_of(run.group, of_tensor);
      MIXBIT_CUDA_UNROLL
      for (int i = 0; i < octet; ++i) v[i] = rule.decode(scale, form.code(packed.get(form.bit_of(i) + shift)));
      store_octet(y.type, y.data, run.offset, map.stride(), where.count, v);
      return;
    }
    MIXBIT_CUDA_ROLL
    for (int i = 0; i < where.count; ++i) {
      auto const one = map.locate(flat + i);
      store_one(y.type, y.data, one.offset,
                rule.decode(scale_of(one.group, of_tensor), form.code(packed.get(form.bit_of(i) + shift))));
    }
  }
};

}  // namespace mixbit::cuda
