#include "layer_tensors.hpp"

#include <span>
#include <utility>

#include "mixbit/io/ct_tensors.hpp"

namespace quantize_checkpoint {

using mixbit::dtype;

layer_tensors::layer_tensors(layer const& l) {
  bool const nvfp4 = l.how->is_nvfp4();
  if (auto const& form = l.how->modelopt) {
    parts[codes] = {".weight", mixbit::hf_code_shape(*form, l.weight)};
    parts[scales] = {".weight_scale", mixbit::hf_scale_shape(*form, l.groups(), false)};
    auto const scalar = mixbit::dense_geometry(dtype::f32, std::span<std::int64_t const>{});
    if (nvfp4) parts[second] = {".weight_scale_2", scalar};
    return;
  }
  auto const& scheme = *l.how->compressed;
  parts[codes] = {mixbit::ct_code_name(scheme), mixbit::ct_code_shape(scheme, l.weight)};
  parts[scales] = {".weight_scale", mixbit::ct_scale_shape(scheme, l.groups())};
  if (nvfp4) parts[second] = {".weight_global_scale", mixbit::dense_geometry(dtype::f32, {1})};
  if (scheme.format == mixbit::ct_format::pack_quantized)
    parts[shape] = {".weight_shape", mixbit::dense_geometry(dtype::i64, {2})};
}

float second_scale(layer const& l, float tensor_scale) {
  return l.how->compressed ? mixbit::ct_global_scale(l.name, "weight", tensor_scale) : tensor_scale;
}

std::vector<std::uint8_t> codes_in_file(layer const& l, encoded_rows&& part, mixbit::executor_ref threads) {
  if (!l.how->compressed) return std::move(part.codes);
  mixbit::geometry rows = l.weight;
  rows.shape[0] = part.rows;
  return mixbit::ct_codes(*l.how->compressed, rows, std::move(part.codes), threads);
}

}  // namespace quantize_checkpoint
