// Which type of GGUF holds what a weight quantizer simulates, exactly. Data only; no files.
//
//   type   weight quantizer                                a block in the file
//   Q8_0   int8 in static blocks of 32 of the last axis    32 codes, a float16 scale = amax/127
//   Q4_0   int4 in static blocks of 32 of the last axis    32 codes with an offset of 8, a float16 scale = amax/7
//   MXFP4  E2M1 in MX blocks of 32, either scale rule      32 codes, an E8M0 scale
//   NVFP4  E2M1 in blocks of 16 with E4M3 scales,          4 E4M3 scales, 64 codes; beside it a tensor NAME.scale
//          four-over-six too                               = tensor amax/2688 (1536: four over six)
//
// Sources: ggml's block layouts (ggml-common.h; gguf-py's quants.py of gguf 0.19) and llama.cpp's loader, which
// multiplies by NAME.scale. llama.cpp's own encoder of Q4_0 makes other codes (the extreme value is -8 under a scale of
// either sign); the file says only what they stand for. Nothing else has a place in GGUF: it has no FP8, no scale a
// channel, and no float32 scale of a block.
#pragma once

#include <optional>

#include "mixbit/io/gguf_head.hpp"
#include "mixbit/io/hf_format.hpp"

namespace mixbit {

/// The type for a weight of this rank; none where GGUF cannot hold it. Whether its float16 scales are exact is the
/// data's matter.
inline std::optional<gguf_type> gguf_type_of(quantizer_numerics const& weight, int rank) {
  auto const size = detail::hf::last_blocks(weight, rank, 1);
  if (!size) return std::nullopt;
  if (detail::hf::is_int(weight, 8) && *size == 32) return gguf_type::q8_0;
  if (detail::hf::is_int(weight, 4) && *size == 32) return gguf_type::q4_0;
  if (weight.how.element != e2m1_element) return std::nullopt;
  if (is_mx(weight.how.scaling) && *size == 32) return gguf_type::mxfp4;
  if (is_two_level(weight.how.scaling) && *size == 16) return gguf_type::nvfp4;
  return std::nullopt;
}

constexpr bool has_half_scales(gguf_type type) { return type == gguf_type::q8_0 || type == gguf_type::q4_0; }

/// Is a float32 scale one that a block of Q8_0 or Q4_0 can hold?
constexpr bool is_half(float scale) { return to_float(from_float<half>(scale)) == scale; }

/// The amax nearest to this one whose scale is_half: what llama.cpp's encoder rounds a scale to. An amax whose scale
/// would overflow stays as it is.
inline float half_scale_amax(gguf_type type, float amax) {
  float const largest = type == gguf_type::q8_0 ? 127.0f : 7.0f;
  float const scale = to_float(from_float<half>(fp::div(amax, largest)));
  return fp::is_finite(scale) ? fp::mul(scale, largest) : amax;  // exact: 11 bits by 7
}

}  // namespace mixbit
