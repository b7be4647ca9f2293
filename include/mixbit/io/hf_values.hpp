// What the tensors of a Hugging Face checkpoint hold: codes and scales of policy `stored` whatever the model
// simulates - scale = amax/bound in float32, code = round to even of clamp(x/scale) - and weights that stay as they
// are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/formats/rules.hpp"
#include "mixbit/quantizer/tensor_quantizer.hpp"

namespace mixbit::detail::hf {

/// A weight to be encoded.
struct encoding {
  const_tensor_ref weight;
  format how;
  partition groups;
  std::vector<float> amax;  ///< one a group
};

/// Files hold `stored` codes with float32 scales.
inline format file_format_of(quantizer_numerics const& n) {
  return {n.how.element, policy::stored, dtype::f32, n.how.layout};
}

inline std::vector<float> file_scales(format const& how, std::vector<float> const& amax) {
  std::vector<float> scales;
  formats::visit_rule(how, {}, [&](auto const& rule) {
    for (float const a : amax) scales.push_back(rule.file_scale(a));
  });
  return scales;
}

/// Throws `state_not_calibrated`, naming the quantizer.
template <backend B>
std::vector<float> calibrated_amax(B& device, tensor_quantizer<B> const& q) {
  if (!q.ready())
    fail(error_id::state_not_calibrated, q.name(), ": a static quantizer that saw no data has no scale to export; ",
         "calibrate it");
  return q.amax(device);
}

/// Of a static quantizer's input, of the calibration or the attributes.
template <backend B>
std::vector<float> input_amax(B& device, tensor_quantizer<B> const& q) {
  if (q.numerics().amax_from == amax_source::constant) return {q.numerics().constant_amax};
  return calibrated_amax(device, q);
}

/// One a group; a dynamic weight quantizer's is that of the weight as it is now. Throws `state_not_calibrated`,
/// `tensor_shape` and `format_amax`, naming the quantizer.
template <backend B>
std::vector<float> weight_amax(B& device, tensor_quantizer<B> const& q, const_tensor_ref const& w,
                               partition const& groups) {
  auto const count = static_cast<std::size_t>(groups.group_count());
  if (q.numerics().amax_from == amax_source::constant) return std::vector<float>(count, q.numerics().constant_amax);
  std::vector<float> amax;
  if (q.numerics().amax_from == amax_source::calibration) {
    amax = calibrated_amax(device, q);
  } else {
    buffer<B, float> found{device, count};
    device.amax({w, groups, found.data(), nullptr});
    amax.resize(count);
    device.copy_to_host(amax.data(), found.data(), count * sizeof(float));
  }
  if (amax.size() != count)
    fail(error_id::tensor_shape, q.name(), ": calibrated on ", amax.size(), " groups, but its weight has ", count);
  check_amax(amax, file_format_of(q.numerics()), w.type, q.name());
  return amax;
}

/// The codes, in `bytes` bytes.
template <backend B>
std::vector<std::uint8_t> encode(B& device, encoding const& e, std::size_t bytes) {
  buffer<B, float> const amax = buffer_of(device, e.amax);
  buffer<B, float> scales{device, e.amax.size()};
  buffer<B, std::uint8_t> codes{device, bytes};
  device.encode({e.weight, e.groups, amax.data(), e.how, codes.data(), scales.data(), nullptr});
  std::vector<std::uint8_t> host(bytes);
  device.copy_to_host(host.data(), codes.data(), bytes);
  return host;
}

/// A host's tensor dense in PyTorch's order and in the file's type; exact where the host's type is no narrower.
template <backend B>
std::vector<std::byte> converted(B& device, const_tensor_ref const& w, dtype type) {
  std::vector<std::byte> dense(static_cast<std::size_t>(w.size()) * size_of(type));
  auto const values = fetch_floats(device, w);
  visit_compute(type, [&]<class To>(To) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      To const to = from_float<To>(values[i]);
      std::memcpy(dense.data() + i * sizeof to, &to, sizeof to);
    }
  });
  return dense;
}

}  // namespace mixbit::detail::hf
