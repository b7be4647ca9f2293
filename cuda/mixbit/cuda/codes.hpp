// Eight codes as the bytes of a file: the device's form of formats/packing.hpp, held to it by tests/cuda.
#pragma once

#include <cstdint>
#include <cstring>

#include "mixbit/cuda/access.hpp"
#include "mixbit/formats/nf4.hpp"
#include "mixbit/formats/packing.hpp"
#include "mixbit/formats/scale_types.hpp"

namespace mixbit::cuda {

/// Up to eight codes side by side, low bits first; 16-bit codes fill both words.
struct packed_codes {
  std::uint64_t word[2]{};

  MIXBIT_HD void put(int bit, std::uint32_t stored) {
    if (bit < 64) word[0] |= std::uint64_t{stored} << bit;
    else word[1] |= std::uint64_t{stored} << (bit - 64);
  }
  MIXBIT_HD std::uint32_t get(int bit) const {
    return static_cast<std::uint32_t>(bit < 64 ? word[0] >> bit : word[1] >> (bit - 64));
  }
};

/// How one code stands in memory, worked out once on the host.
class code_form {
 public:
  code_form() = default;
  code_form(packing layout, element_type const& e)
      : layout_{layout},
        width_{layout == packing::bytes ? (e.bits > 8 ? 16 : 8) : e.bits},
        mask_{(1u << width_) - 1u},
        offset_{formats::stores_offset(layout, e) ? 8 : 0},
        signed_{e.kind == element_kind::integer && !e.is_unsigned && offset_ == 0},
        filler_{layout == packing::nibbles_high_first
                    ? formats::stored_bits(layout, e, e.kind == element_kind::lookup ? formats::nf4_zero : 0)
                    : 0u} {}

  MIXBIT_HD int width() const { return width_; }
  MIXBIT_HD std::uint32_t stored(int code) const { return static_cast<std::uint32_t>(code + offset_) & mask_; }
  MIXBIT_HD int code(std::uint32_t stored) const {
    std::uint32_t const own = stored & mask_;
    if (signed_) return static_cast<int>(own << (32 - width_)) >> (32 - width_);
    return static_cast<int>(own) - offset_;
  }

  /// The bit of the i-th code of an octet. Pairs of rows take a byte a column, the second row the high half.
  MIXBIT_HD int bit_of(int i) const {
    if (layout_ == packing::nibbles_high_first) return (i ^ 1) * 4;
    return i * (layout_ == packing::nibbles_row_pairs ? 8 : width_);
  }
  /// Bytes of n codes, padding included.
  MIXBIT_HD int bytes_of(int n) const {
    return layout_ == packing::nibbles_row_pairs ? n : (n * width_ + 7) / 8;
  }
  /// Completes the last byte of n codes.
  MIXBIT_HD void fill(packed_codes& codes, int n) const {
    if (layout_ == packing::nibbles_high_first && n % 2 != 0) codes.put(bit_of(n), filler_);
  }

 private:
  packing layout_ = packing::bytes;
  int width_ = 8;
  std::uint32_t mask_ = 0xff;
  int offset_ = 0;
  bool signed_ = false;
  std::uint32_t filler_ = 0;
};

/// Writes the first n bytes, as wide as place and number allow.
MIXBIT_HD inline void write_bytes(std::uint8_t* out, packed_codes const& codes, int n) {
  if (n == 16 && is_aligned(out, 16)) {
    quad q;
    MIXBIT_CUDA_UNROLL
    for (int k = 0; k < 4; ++k) q.word[k] = codes.get(32 * k);
    store_quad(out, q);
  } else if (n == 8 && is_aligned(out, 8)) {
    std::uint64_t const word = codes.word[0];
    memcpy(__builtin_assume_aligned(out, 8), &word, 8);
  } else if (n % 4 == 0 && is_aligned(out, 4)) {
    for (int k = 0; k < n / 4; ++k) {
      std::uint32_t const word = codes.get(32 * k);
      memcpy(__builtin_assume_aligned(out + 4 * k, 4), &word, 4);
    }
  } else {
    for (int k = 0; k < n; ++k) out[k] = static_cast<std::uint8_t>(codes.get(8 * k));
  }
}

/// Reads the first n bytes, and no more.
MIXBIT_HD inline packed_codes read_bytes(std::uint8_t const* in, int n) {
  packed_codes codes;
  if (n == 16 && is_aligned(in, 16)) {
    quad const q = load_quad(in);
    MIXBIT_CUDA_UNROLL
    for (int k = 0; k < 4; ++k) codes.put(32 * k, q.word[k]);
  } else if (n == 8 && is_aligned(in, 8)) {
    memcpy(&codes.word[0], __builtin_assume_aligned(in, 8), 8);
  } else if (n % 4 == 0 && is_aligned(in, 4)) {
    for (int k = 0; k < n / 4; ++k) {
      std::uint32_t word = 0;
      memcpy(&word, __builtin_assume_aligned(in + 4 * k, 4), 4);
      codes.put(32 * k, word);
    }
  } else {
    for (int k = 0; k < n; ++k) codes.put(8 * k, in[k]);
  }
  return codes;
}

/// The scale of one group; 1 where there are none.
MIXBIT_HD inline float read_scale(dtype type, void const* scales, std::int64_t group) {
  if (!scales) return 1.0f;
  switch (type) {
    case dtype::f32: return static_cast<float const*>(scales)[group];
    case dtype::f16: return widen(static_cast<half const*>(scales)[group]);
    case dtype::bf16: return widen(static_cast<bfloat16 const*>(scales)[group]);
    case dtype::f8_e4m3: return formats::scale_value(static_cast<formats::e4m3_scale const*>(scales)[group]);
    default: return formats::scale_value(static_cast<formats::e8m0_scale const*>(scales)[group]);
  }
}

MIXBIT_HD inline void write_scale(dtype type, void* scales, std::int64_t group, float value) {
  switch (type) {
    case dtype::f32: static_cast<float*>(scales)[group] = value; return;
    case dtype::f16: static_cast<half*>(scales)[group] = formats::scale_as<half>(value); return;
    case dtype::bf16: static_cast<bfloat16*>(scales)[group] = formats::scale_as<bfloat16>(value); return;
    case dtype::f8_e4m3:
      static_cast<formats::e4m3_scale*>(scales)[group] = formats::scale_as<formats::e4m3_scale>(value);
      return;
    default: static_cast<formats::e8m0_scale*>(scales)[group] = formats::scale_as<formats::e8m0_scale>(value);
  }
}

}  // namespace mixbit::cuda
