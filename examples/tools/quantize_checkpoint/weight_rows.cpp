#include "weight_rows.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"

namespace quantize_checkpoint {

using mixbit::const_tensor_ref;
using mixbit::tensor_ref;

namespace {

/// Rows are many enough to keep all cores busy, and few enough to stay in a cache between the passes over them.
constexpr std::int64_t chunk_bytes = std::int64_t{4} << 20;

/// Rows that share bytes, or scales but the tensor's own.
std::int64_t rows_of_unit(layer const& l) {
  if (l.how->modelopt && l.how->modelopt->algorithm == mixbit::hf_algorithm::int4_weight_only) return 2;
  return l.how->has_tensor_scale() ? 1 : l.groups().block[0];
}

/// Taken by a row while it is encoded or measured, at most: copies in and out, float32 amaxes, codes and scales twice.
std::int64_t bytes_of_row(layer const& l) {
  auto const elements = l.weight.shape[1];
  auto const groups = l.groups().group_count() / l.groups().groups[0];
  return elements * (3 * static_cast<std::int64_t>(mixbit::size_of(l.weight.type)) + 2) + groups * 16;
}

const_tensor_ref view_of(const_tensor_ref like, std::int64_t rows, void const* data) {
  like.shape[0] = rows;
  like.data = data;
  return like;
}

}  // namespace

mixbit::partition layer::groups() const {
  return mixbit::tensor_quantizer<device>{name, how->attributes, mixbit::policy::stored}.grouping(weight);
}

mixbit::element_type layer::element() const {
  return mixbit::tensor_quantizer<device>{name, how->attributes, mixbit::policy::stored}.numerics().how.element;
}

std::string layer_format::form() const {
  return std::string{gguf ? mixbit::gguf_info(*gguf).name
                          : compressed ? mixbit::name_of(compressed->format) : mixbit::name_of(modelopt->algorithm)};
}

weight_rows::weight_rows(device const& on, layer const& of, std::string file, std::int64_t memory)
    : device_{on}, layer_{of}, file_{std::move(file)} {
  std::int64_t const unit = rows_of_unit(of), row = bytes_of_row(of), limit = std::min(memory, 16 * chunk_bytes);
  if (row * unit > memory)
    mixbit::fail(mixbit::error_id::file_content, file_, ": tensor ", mixbit::in_quotes(of.name + ".weight"), ": ", unit,
                 " rows at once take ", row * unit, " bytes, and ", memory, " are left of --memory");
  std::int64_t const wanted = chunk_bytes / std::max<std::int64_t>(of.weight.shape[1], 1);
  chunk_ = std::clamp<std::int64_t>(std::min(wanted, limit / row) / unit, 1, of.weight.shape[0]) * unit;
}

const_tensor_ref weight_rows::rows(std::int64_t first, std::int64_t end) {
  auto const row = static_cast<std::size_t>(layer_.weight.bytes() / layer_.weight.shape[0]);
  auto const* data = layer_.weight.as<std::byte>() + static_cast<std::size_t>(first) * row;
  if (reinterpret_cast<std::uintptr_t>(data) % mixbit::size_of(layer_.weight.type) != 0) {  // files need not align
    aligned_.resize(static_cast<std::size_t>(end - first) * row);
    std::memcpy(aligned_.data(), data, aligned_.size());
    data = aligned_.data();
  }
  return view_of(layer_.weight, end - first, data);
}

void weight_rows::each_chunk(std::function<void(std::int64_t, const_tensor_ref)> const& visit) {
  std::int64_t const all = layer_.weight.shape[0];
  for (std::int64_t first = 0; first < all; first += chunk_) visit(first, rows(first, std::min(first + chunk_, all)));
}

float weight_rows::largest(const_tensor_ref const& x) {
  float amax = 0;
  mixbit::data_flags seen;
  device_.amax({x, mixbit::per_tensor(x), &amax, &seen});
  if (seen.nonfinite != 0)
    mixbit::fail(mixbit::error_id::file_content, file_, ": tensor ", mixbit::in_quotes(layer_.name + ".weight"),
                 " holds ", seen.nonfinite, " NaN or infinite value(s); such a weight cannot be quantized");
  return amax;
}

float weight_rows::tensor_amax() {
  if (tensor_amax_ < 0) {
    float amax = 0;
    each_chunk([&](auto, auto const& x) { amax = std::max(amax, largest(x)); });
    tensor_amax_ = amax;
  }
  return tensor_amax_;
}

float weight_rows::tensor_scale() {
  mixbit::tensor_quantizer<device> const q{layer_.name, layer_.how->attributes, mixbit::policy::stored};
  return mixbit::detail::hf::tensor_scale(q.numerics(), tensor_amax());
}

bool weight_rows::is_one_group() const { return layer_.how->has_tensor_scale() && !layer_.how->is_nvfp4(); }

mixbit::tensor_quantizer<device> weight_rows::quantizer(const_tensor_ref const& x) {
  mixbit::tensor_quantizer<device> q{layer_.name + ".weight_quantizer", layer_.how->attributes, mixbit::policy::stored};
  bool const two_levels = mixbit::is_two_level(q.numerics().how.scaling);
  if (is_one_group()) (void)tensor_amax();
  else if (!two_levels) (void)largest(x);
  if (q.needs_calibration() && (q.numerics().groups_from_data || is_one_group())) {
    q.set_amax(device_, mixbit::per_tensor(x), {tensor_amax()});
  } else if (q.needs_calibration()) {
    q.observe(device_, scratch_, x);
    q.finish(device_);
    if (layer_.how->gguf && mixbit::has_half_scales(*layer_.how->gguf)) round_scales(q, x);
  }
  if (two_levels) q.hold_tensor_amax(device_, tensor_amax());
  return q;
}

/// As round_gguf_scales does: what is measured and encoded has the scales that the file holds.
void weight_rows::round_scales(mixbit::tensor_quantizer<device>& q, const_tensor_ref const& x) {
  auto amax = q.amax(device_);
  for (float& a : amax) a = mixbit::half_scale_amax(*layer_.how->gguf, a);
  q.set_amax(device_, q.grouping(x), amax);
}

void weight_rows::encode(std::function<void(encoded_rows&)> const& take) {
  each_chunk([&](std::int64_t first, const_tensor_ref const& x) {
    auto q = quantizer(x);
    mixbit::hf_encoding<device> encoding{device_, q, x, q.grouping(x)};
    encoded_rows out{first, {}, {}, {}, x.shape[0]};
    if (mixbit::is_two_level(q.numerics().how.scaling)) encoding.take_tensor_amax(tensor_amax());
    bool const has_scales = !is_one_group() || first == 0;
    if (q.numerics().how.scaling == mixbit::scale_rule::ratio && has_scales) out.scales = encoding.scales();
    auto parts = encoding.encode(device_);
    out.codes = std::move(parts.codes);
    out.block_scales = std::move(parts.block_scales);
    take(out);
  });
}

double weight_rows::error(std::vector<float> const& importance) {
  std::vector<double> columns(static_cast<std::size_t>(layer_.weight.shape[1]));
  int const by_column = 1;
  each_chunk([&](std::int64_t, const_tensor_ref const& x) {
    auto const bytes = static_cast<std::size_t>(x.bytes());
    quantized_.resize(bytes);
    difference_.resize(bytes);
    tensor_ref const y{x, quantized_.data()}, d{x, difference_.data()};
    mixbit::arena_scope const borrowed{scratch_};
    quantizer(x).quantize(device_, scratch_, x, y);
    device_.subtract({x, y, d});
    device_.sum({d, mixbit::per_axes(d, std::span{&by_column, 1}), mixbit::sum_of::squares, columns.data(), nullptr});
  });
  double error = 0;
  for (std::size_t i = 0; i < columns.size(); ++i)
    error += columns[i] * (importance.empty() ? 1.0 : static_cast<double>(importance[i]));
  return error;
}

}  // namespace quantize_checkpoint
