// Codes of one row, one a byte, to and from the bits of formats/packing.hpp.
// needs: <hwy/highway.h>
#include "mixbit/formats/nf4.hpp"
#include "mixbit/formats/packing.hpp"
#include "mixbit/reference/simd/rows-inl.hpp"

#if defined(MIXBIT_REFERENCE_SIMD_PACKING_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXBIT_REFERENCE_SIMD_PACKING_INL
#undef MIXBIT_REFERENCE_SIMD_PACKING_INL
#else
#define MIXBIT_REFERENCE_SIMD_PACKING_INL
#endif

#if MIXBIT_SIMD_VECTORS

HWY_BEFORE_NAMESPACE();
namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE {

using pair_tag = hn::ScalableTag<std::uint16_t>;       // two codes a lane
using packed_tag = hn::Rebind<std::uint8_t, pair_tag>;  // the two in a byte
inline constexpr std::int64_t pair_lanes = hn::MaxLanes(pair_tag{});

/// Nibbles of a row: the even columns low (dense_rows) or high (nibbles_high_first, where the code of 0 fills the last
/// byte).
template <bool HighFirst>
HWY_INLINE void pack_nibbles(std::uint8_t const* codes, std::int64_t n, std::uint8_t* out) {
  auto const low = hn::Set(pair_tag{}, std::uint16_t{0x000f}), high = hn::Set(pair_tag{}, std::uint16_t{0x00f0});
  std::int64_t i = 0;
  for (; i + 2 * pair_lanes <= n; i += 2 * pair_lanes) {
    auto const v = hn::BitCast(pair_tag{}, hn::LoadU(hn::Repartition<std::uint8_t, pair_tag>{}, codes + i));
    auto const both = HighFirst ? hn::Or(hn::And(hn::ShiftLeft<4>(v), high), hn::And(hn::ShiftRight<8>(v), low))
                                : hn::Or(hn::And(v, low), hn::And(hn::ShiftRight<4>(v), high));
    hn::StoreU(hn::DemoteTo(packed_tag{}, hn::BitCast(hn::RebindToSigned<pair_tag>{}, both)), packed_tag{},
               out + i / 2);
  }
  for (; i < n; i += 2) {
    int const even = codes[i] & 15, odd = i + 1 < n ? codes[i + 1] & 15 : HighFirst ? formats::nf4_zero : 0;
    out[i / 2] = static_cast<std::uint8_t>(HighFirst ? even << 4 | odd : even | odd << 4);
  }
}

template <bool HighFirst>
HWY_INLINE void unpack_nibbles(std::uint8_t const* in, std::int64_t n, std::uint8_t* codes) {
  auto const low = hn::Set(pair_tag{}, std::uint16_t{0x000f}), high = hn::Set(pair_tag{}, std::uint16_t{0x0f00});
  std::int64_t i = 0;
  for (; i + 2 * pair_lanes <= n; i += 2 * pair_lanes) {
    auto const v = hn::PromoteTo(pair_tag{}, hn::LoadU(packed_tag{}, in + i / 2));
    auto const both = HighFirst ? hn::Or(hn::ShiftRight<4>(v), hn::And(hn::ShiftLeft<8>(v), high))
                                : hn::Or(hn::And(v, low), hn::And(hn::ShiftLeft<4>(v), high));
    hn::StoreU(hn::BitCast(hn::Repartition<std::uint8_t, pair_tag>{}, both),
               hn::Repartition<std::uint8_t, pair_tag>{}, codes + i);
  }
  for (; i < n; ++i) codes[i] = static_cast<std::uint8_t>(in[i / 2] >> ((i + (HighFirst ? 1 : 0)) % 2 * 4) & 15);
}

/// nibbles_row_pairs: `below`, which may be null, in the high nibble. Whole bytes, shifted in lanes of two.
HWY_INLINE void pack_rows(std::uint8_t const* above, std::uint8_t const* below, std::int64_t n, std::uint8_t* out) {
  using tag = hn::Repartition<std::uint8_t, pair_tag>;
  auto const low = hn::Set(tag{}, std::uint8_t{0x0f}), high = hn::Set(tag{}, std::uint8_t{0xf0});
  std::int64_t i = 0;
  for (; below && i + 2 * pair_lanes <= n; i += 2 * pair_lanes) {
    auto const shifted = hn::ShiftLeft<4>(hn::BitCast(pair_tag{}, hn::LoadU(tag{}, below + i)));
    auto const both = hn::Or(hn::And(hn::LoadU(tag{}, above + i), low), hn::And(hn::BitCast(tag{}, shifted), high));
    hn::StoreU(both, tag{}, out + i);
  }
  for (; i < n; ++i) out[i] = static_cast<std::uint8_t>((above[i] & 15) | (below ? below[i] & 15 : 0) << 4);
}

HWY_INLINE void unpack_row(std::uint8_t const* in, int shift, std::int64_t n, std::uint8_t* codes) {
  using tag = hn::Repartition<std::uint8_t, pair_tag>;
  auto const low = hn::Set(tag{}, std::uint8_t{0x0f});
  std::int64_t i = 0;
  for (; i + 2 * pair_lanes <= n; i += 2 * pair_lanes) {
    auto const shifted = hn::ShiftRightSame(hn::BitCast(pair_tag{}, hn::LoadU(tag{}, in + i)), shift);
    hn::StoreU(hn::And(hn::BitCast(tag{}, shifted), low), tag{}, codes + i);
  }
  for (; i < n; ++i) codes[i] = static_cast<std::uint8_t>(in[i] >> shift & 15);
}

/// In every lane: pairs of fields of `width` bits, of which `bits` are used and the rest zero, become one.
template <class D>
HWY_INLINE hn::Vec<D> join_fields(D d, hn::Vec<D> v, int width, int bits) {
  std::uint64_t lower = 0;
  for (int at = 0; at < 64; at += 2 * width) lower |= ((std::uint64_t{1} << bits) - 1) << at;
  auto const low = hn::Set(d, lower);
  return hn::Or(hn::And(v, low), hn::ShiftRightSame(hn::AndNot(low, v), width - bits));
}

/// The codes of as many vectors as there are codes and room for; returns how many codes that was. In every 64 bits
/// eight codes move together in three steps, then the bytes of two such lanes.
inline std::int64_t pack_whole(std::uint8_t const* codes, std::int64_t n, int bits, std::uint8_t* out) {
  using tag = hn::ScalableTag<std::uint64_t>;
  using byte_vector = hn::Repartition<std::uint8_t, tag>;
  constexpr std::int64_t together = hn::MaxLanes(byte_vector{});
  tag const d;
  HWY_ALIGN std::uint8_t order[16], packed[static_cast<std::size_t>(together)];
  for (int i = 0; i < 16; ++i) order[i] = static_cast<std::uint8_t>(i < bits ? i : i < 2 * bits ? i - bits + 8 : 0x80);
  auto const places = hn::LoadDup128(byte_vector{}, order);
  auto const own = hn::Set(byte_vector{}, static_cast<std::uint8_t>((1 << bits) - 1));
  std::int64_t i = 0;
  // 16 codes write 16 bytes, of which 2*bits are their own and the rest is written again behind them
  for (; (i + together) * bits / 8 + 16 <= (n * bits + 7) / 8; i += together) {
    auto v = hn::BitCast(d, hn::And(hn::LoadU(byte_vector{}, codes + i), own));
    v = join_fields(d, join_fields(d, join_fields(d, v, 8, bits), 16, 2 * bits), 32, 4 * bits);
    hn::Store(hn::TableLookupBytesOr0(hn::BitCast(byte_vector{}, v), places), byte_vector{}, packed);
    for (std::int64_t k = 0; k < together; k += 16) std::memcpy(out + (i + k) * bits / 8, packed + k, 16);
  }
  return i;
}

/// dense_rows of any width: eight codes at a time are as many bytes as a code has bits.
inline void pack_bits(std::uint8_t const* codes, std::int64_t n, int bits, std::uint8_t* out) {
  std::uint64_t const own = (1u << bits) - 1;
  std::int64_t const done = pack_whole(codes, n, bits, out);
  out += done * bits / 8;
  for (std::int64_t i = done; i < n; i += 8) {
    std::int64_t const count = std::min<std::int64_t>(8, n - i), whole = (count * bits + 7) / 8;
    std::uint64_t word = 0;
    for (std::int64_t k = 0; k < count; ++k) word |= (codes[i + k] & own) << (k * bits);
    for (std::int64_t k = 0; k < whole; ++k) *out++ = static_cast<std::uint8_t>(word >> 8 * k);
  }
}

inline void unpack_bits(std::uint8_t const* in, std::int64_t n, int bits, std::uint8_t* codes) {
  std::uint64_t const own = (1u << bits) - 1;
  for (std::int64_t i = 0; i < n; i += 8) {
    std::int64_t const count = std::min<std::int64_t>(8, n - i), whole = (count * bits + 7) / 8;
    std::uint64_t word = 0;
    for (std::int64_t k = 0; k < whole; ++k) word |= std::uint64_t{*in++} << 8 * k;
    for (std::int64_t k = 0; k < count; ++k) codes[i + k] = static_cast<std::uint8_t>(word >> (k * bits) & own);
  }
}

/// What the kernels below lay out. The flat layout of nibbles_high_first has rows if they are of even length, or there
/// is one; there are no vectors for the offset that integers have in it. 16-bit codes have no byte.
inline bool has_row_codes(format const& how, geometry const& g) {
  if (how.element.bits > 8 || g.rank == 0) return false;
  if (how.layout == packing::nibbles_row_pairs) return g.rank == 2;  // else a row is not one of the last axis
  if (how.layout == packing::nibbles_high_first) {
    std::int64_t const columns = g.shape[g.rank - 1];
    return how.element.kind == element_kind::lookup && (columns % 2 == 0 || columns == g.size());
  }
  return how.layout == packing::bytes || how.layout == packing::dense_rows;
}

/// Are codes of this layout whole bytes, which need no packing?
inline bool holds_bytes(format const& how) {
  return how.layout == packing::bytes || (how.layout == packing::dense_rows && how.element.bits == 8);
}

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET::simd_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
#endif
