// Conformance of a function: it is called with inputs made for the purpose (validate/vectors.hpp), and what it gives
// is compared with the reference as in validate/compare.hpp. One report for all inputs.
//
//   auto const mine = [](fake_quantize_args const& a) { my_quantize(a.x.as<float>(), a.y.as<float>(), ...); };
//   auto const blocks = [](geometry const& g) { return blocks_of(g, std::vector<axis_block>{{-1, 32}}); };
//   validate::report const r = validate::check_fake_quantize(cpu, mine, how, blocks);
//
// The function takes what a backend's kernel of the same name takes; all pointers are to memory of the host, dense.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "mixbit/validate/compare.hpp"
#include "mixbit/validate/vectors.hpp"

namespace mixbit::validate {

/// From a tensor's geometry to its groups.
template <class F>
concept grouping = requires(F const& f, geometry const& g) {
  { f(g) } -> std::convertible_to<partition>;
};

/// Calls f(vector, its groups) for all inputs of a check.
template <class Grouping, class F>
void for_vectors(format const& how, dtype type, Grouping const& groups, F&& f) {
  partition const probe = groups(dense_geometry(type, {1024, 1024}));
  auto const axis = line_axis(probe);
  std::int64_t const block = axis && probe.block[*axis] < 1024 ? probe.block[*axis] : 0;
  for (auto const& shape : awkward_shapes(block)) {
    geometry const g = dense_geometry(type, shape);
    for (test_vector const& v : make_vectors(how, g, groups(g))) f(v, groups(g));
  }
}

namespace detail {

/// The sample of an input before anything was found: checked, with its amax.
template <backend B>
sample sample_of(B& b, test_vector const& v, format const& how, partition const& groups) {
  auto const bytes = typed(v.x, v.shape.type);
  const_tensor_ref const x{v.shape, bytes.data()};
  return make_sample(b, results{x, x}, expectation{how, groups}, v.name + " " + to_string(v.shape));
}

/// Compares what f(sample, vector, its groups) puts into the sample of each input.
template <backend B, class Grouping, class F>
report compare_vectors(B& b, format const& how, dtype type, Grouping const& groups, F&& f) {
  std::vector<sample> samples;
  for_vectors(how, type, groups, [&](test_vector const& v, partition const& p) {
    samples.push_back(sample_of(b, v, how, p));
    f(samples.back(), v, p);
  });
  return compare(b, samples, how);
}

}  // namespace detail

/// Checks a function that quantizes and restores. `type` is of its tensors. `user(fake_quantize_args const&)` writes y.
template <backend B, std::invocable<fake_quantize_args const&> F, grouping Grouping>
report check_fake_quantize(B& b, F&& user, format const& how, Grouping const& groups, dtype type = dtype::f32) {
  return detail::compare_vectors(b, how, type, groups, [&](sample& s, test_vector const& v, partition const& p) {
    auto const x = typed(v.x, type);
    std::vector<std::byte> y(x.size(), std::byte{0xee});  // what is not written is seen
    user(fake_quantize_args{{v.shape, x.data()}, {{v.shape}, y.data()}, p, s.amax.data(), how, nullptr,
                            &s.tensor_amax});
    s.values = detail::as_floats(y, type);
  });
}

/// Checks a function that encodes: `user(encode_args const&)` writes codes in the format's layout, which are zero
/// before, and scales (and the tensor's scale, for two levels).
template <backend B, std::invocable<encode_args const&> F, grouping Grouping>
report check_encode(B& b, F&& user, format const& how, Grouping const& groups, dtype type = dtype::f32) {
  check_encodable(how, "check_encode");
  return detail::compare_vectors(b, how, type, groups, [&](sample& s, test_vector const& v, partition const& p) {
    s.values.reset();
    auto const x = typed(v.x, type);
    auto const size = storage_size_of(how, v.shape, p);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(size.payload));
    std::vector<std::byte> scales(static_cast<std::size_t>(size.scales), std::byte{0xee});
    float tensor_scale = 0;
    user(encode_args{{v.shape, x.data()}, p, s.amax.data(), how, codes.data(), scales.data(), nullptr, &s.tensor_amax,
                     &tensor_scale});
    s.codes = found_codes{std::move(codes), {}};
    s.scales = detail::as_floats(scales, how.scale_type);
    if (is_two_level(how.scaling)) s.tensor_scale = tensor_scale;
  });
}

/// Checks a function that decodes what the reference has encoded: `user(decode_args const&)` writes y.
template <backend B, std::invocable<decode_args const&> F, grouping Grouping>
report check_decode(B& b, F&& user, format const& how, Grouping const& groups, dtype type = dtype::f32) {
  check_encodable(how, "check_decode");
  return detail::compare_vectors(b, how, type, groups, [&](sample& s, test_vector const& v, partition const& p) {
    geometry device = v.shape;
    device.where = B::place;
    auto const size = storage_size_of(how, v.shape, p);
    auto const x = detail::upload(b, v.x, type);
    auto const amax = buffer_of(b, s.amax), whole = buffer_of(b, s.tensor_amax);
    auto const bytes = static_cast<std::size_t>(size.payload), scale_bytes = static_cast<std::size_t>(size.scales);
    buffer<B, std::uint8_t> codes{b, bytes}, scales{b, scale_bytes};
    buffer<B, float> tensor_scale{b, 1};
    b.encode({{device, x.data()}, p, amax.data(), how, codes.data(), scales.data(), nullptr, whole.data(),
              tensor_scale.data()});
    auto const host_codes = detail::download(b, codes.data(), bytes);
    auto const host_scales = detail::download(b, scales.data(), scale_bytes);
    auto const* const first = reinterpret_cast<std::uint8_t const*>(host_codes.data());
    s.given_codes.emplace(first, first + bytes);
    s.given_scales = detail::as_floats(host_scales, how.scale_type);
    if (is_two_level(how.scaling))
      s.given_tensor_scale = detail::load_as<float>(detail::download(b, tensor_scale.data(), sizeof(float)).data());
    std::vector<std::byte> y(v.x.size() * size_of(type), std::byte{0xee});
    user(decode_args{first, host_scales.data(), p, how, {{v.shape}, y.data()}, &s.given_tensor_scale});
    s.values = detail::as_floats(y, type);
  });
}

}  // namespace mixbit::validate
