// The tensors of a quantized weight in a compressed-tensors checkpoint: names, shapes, and codes as they lie there.
// io/ct_form.hpp has the table.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/ct_form.hpp"
#include "mixbit/io/ct_packing.hpp"

namespace mixbit {

/// Behind the module's name. Packed codes are a tensor of their own, others take the place of the source's.
constexpr char const* ct_code_name(ct_scheme const& s) {
  bool const in_place = s.format == ct_format::int_quantized || s.format == ct_format::float_quantized ||
                        s.format == ct_format::mxfp8_quantized;
  return in_place ? ".weight" : ".weight_packed";
}

/// Of a weight [out, in], or of some of its rows.
inline geometry ct_code_shape(ct_scheme const& s, geometry const& weight) {
  std::int64_t const rows = weight.shape[0], columns = weight.shape[1];
  switch (s.format) {
    case ct_format::pack_quantized:
      return dense_geometry(dtype::i32, {rows, detail::ct::packed_words(columns, s.weight.bits)});
    case ct_format::nvfp4_pack_quantized:
    case ct_format::mxfp4_pack_quantized: return dense_geometry(dtype::u8, {rows, columns / 2});
    case ct_format::int_quantized: return dense_geometry(dtype::i8, {rows, columns});
    default: return dense_geometry(dtype::f8_e4m3, {rows, columns});
  }
}

/// Of a weight that is divided into these groups.
inline geometry ct_scale_shape(ct_scheme const& s, partition const& groups) {
  dtype const type = s.is_nvfp4() ? dtype::f8_e4m3 : s.is_mx() ? dtype::u8 : dtype::f32;
  if (s.weight.strategy == ct_strategy::tensor) return dense_geometry(type, {1});
  return dense_geometry(type, {groups.groups[0], groups.groups[1]});
}

/// What an encoding gives for a weight, or for some of its rows, as the file holds it; the same on any threads.
inline std::vector<std::uint8_t> ct_codes(ct_scheme const& s, geometry const& weight, std::vector<std::uint8_t> codes,
                                          executor_ref threads = {}) {
  if (s.format != ct_format::pack_quantized) return codes;
  int const bits = s.weight.bits;
  return detail::ct::packed_rows({integer_element(bits, false, false), weight, codes}, bits, threads);
}

/// The reciprocal of NVFP4's scale of a whole tensor; of zeros alone 1, as all codes are zero then. Throws
/// `format_amax` for one that float32 does not hold.
inline float ct_global_scale(std::string const& layer, char const* what, float scale) {
  if (scale == 0.0f) return 1.0f;
  float const global = 1.0f / scale;
  if (!fp::is_finite(global))
    fail(error_id::format_amax, layer, ": the scale of its ", what, " is ", scale, ", and compressed-tensors holds ",
         "the reciprocal, which float32 does not");
  return global;
}

}  // namespace mixbit
