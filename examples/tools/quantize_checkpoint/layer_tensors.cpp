#include "layer_tensors.hpp"

#include <span>

#include "mixbit/io/ct_tensors.hpp"

namespace quantize_checkpoint {

using mixbit::dtype;

layer_tensors::layer_tensors(layer const& l) {
  bool const nvfp4 = l.is_nvfp4();
  if (!l.compressed) {
    codes = {l.name + ".weight", mixbit::hf_code_shape(*l.format, l.weight)};
    scales = {l.name + ".weight_scale", mixbit::hf_scale_shape(*l.format, l.groups(), false)};
    auto const scalar = mixbit::dense_geometry(dtype::f32, std::span<std::int64_t const>{});
    if (nvfp4) second = {l.name + ".weight_scale_2", scalar};
    return;
  }
  auto const& scheme = *l.compressed;
  codes = {l.name + mixbit::ct_code_name(scheme), mixbit::ct_code_shape(scheme, l.weight)};
  scales = {l.name + ".weight_scale", mixbit::ct_scale_shape(scheme, l.groups())};
  if (nvfp4) second = {l.name + ".weight_global_scale", mixbit::dense_geometry(dtype::f32, {1})};
  if (scheme.format == mixbit::ct_format::pack_quantized)
    shape = {l.name + ".weight_shape", mixbit::dense_geometry(dtype::i64, {2})};
}

std::vector<mixbit::named_geometry> layer_tensors::all() const {
  std::vector<mixbit::named_geometry> named;
  for (auto const* const t : {&codes, &scales, &second, &shape})
    if (!t->name.empty()) named.push_back(*t);
  return named;
}

float second_scale(layer const& l, float tensor_scale) {
  return l.compressed ? mixbit::ct_global_scale(l.name, "weight", tensor_scale) : tensor_scale;
}

std::vector<std::uint8_t> codes_in_file(layer const& l, encoded_rows const& part, mixbit::executor_ref threads) {
  if (!l.compressed) return part.codes;
  mixbit::geometry rows = l.weight;
  rows.shape[0] = part.rows;
  return mixbit::ct_codes(*l.compressed, rows, part.codes, threads);
}

}  // namespace quantize_checkpoint
