// A quantized weight as a Hugging Face checkpoint holds it: its codes and scales (io/hf_format.hpp says their shapes).
//
// Contract: codes and scales are those of policy `stored` whatever the model simulates, so a loader that multiplies a
// code by its scale gets what fake quantization under `stored` gives. An amax that no scale can be made of is refused
// when the encoding is made; codes are made when they are asked for, from the weight as it is then.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "mixbit/core/backend.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/formats/nvfp4.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/quantizer/tensor_quantizer.hpp"

namespace mixbit {

namespace detail::hf {

/// What files hold for these numerics: float32 scales, unless the scales are quantized themselves.
inline format file_format_of(quantizer_numerics const& n) {
  bool const ratio = n.how.scaling == scale_rule::ratio;
  return {n.how.element, policy::stored, ratio ? dtype::f32 : n.how.scale_type, n.how.layout, n.how.scaling};
}

template <backend B>
std::vector<float> calibrated_amax(B& device, tensor_quantizer<B>& q) {
  if (!q.ready())
    fail(error_id::state_not_calibrated, q.name(), ": a static quantizer that saw no data has no scale to export; ",
         "calibrate it");
  return q.amax(device);
}

/// Of a static quantizer of whole tensors. Throws `state_not_calibrated`.
template <backend B>
float tensor_amax(B& device, tensor_quantizer<B>& q) {
  return q.numerics().amax_from == amax_source::constant ? q.numerics().constant_amax
                                                         : calibrated_amax(device, q).front();
}

/// One amax a group of `w`; a dynamic quantizer's are those of the weight as it is now.
template <backend B>
std::vector<float> amax_of(B& device, tensor_quantizer<B>& q, const_tensor_ref const& w, partition const& groups) {
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

/// The scale of a whole tensor as files hold it; of NVFP4 the one above the blocks'.
inline float tensor_scale(quantizer_numerics const& n, float amax) {
  if (is_two_level(n.how.scaling)) return formats::nvfp4_tensor_scale(n.how.scaling, amax);
  return formats::visit_rule(file_format_of(n), {}, [&](auto const& rule) { return rule.file_scale(amax); });
}

}  // namespace detail::hf

template <backend B>
class hf_encoding {
 public:
  /// `factors`: of the weight's quantizer, by which it scales the last axis before anything else; empty: it does not.
  /// Throws `state_not_calibrated`, `tensor_shape`, `format_amax` and what check_encodable does, naming the quantizer.
  hf_encoding(B& device, tensor_quantizer<B>& q, const_tensor_ref const& weight, partition const& groups,
              std::vector<float> const& factors = {})
      : weight_{weight},
        groups_{groups},
        numerics_{q.numerics()},
        how_{detail::hf::file_format_of(numerics_)},
        factors_{buffer_of(device, factors)} {
    check_encodable(how_, q.name());
    if (!factors.empty() && std::ssize(factors) != weight.shape[weight.rank - 1])
      fail(error_id::tensor_shape, q.name(), ": a pre_quant_scale of ", factors.size(),
           " values for a weight of shape ", to_string(weight));
    scaled_copy const scaled{device, *this};
    const_tensor_ref const w = scaled.view;
    bool const from_data = numerics_.groups_from_data;
    if (!from_data) amax_ = detail::hf::amax_of(device, q, w, groups);
    if (!is_two_level(how_.scaling)) return;
    if (from_data) tensor_amax_ = detail::hf::amax_of(device, q, w, per_tensor(w)).front();
    else if (numerics_.amax_from == amax_source::calibration) tensor_amax_ = q.tensor_amax(device, w);
    else tensor_amax_ = amax_.empty() ? 0.0f : *std::max_element(amax_.begin(), amax_.end());
  }

  /// One a group; none where groups take theirs from the weight.
  std::vector<float> const& amax() const { return amax_; }
  /// Of a weight that is one group.
  void take_amax(float value) { amax_ = {value}; }
  /// Of a weight that is a part of a tensor, whose NVFP4 scale comes from all of it.
  void take_tensor_amax(float value) { tensor_amax_ = value; }

  /// float32, one a group. Not for scales that are quantized themselves: those are block_scales().
  std::vector<float> scales() const {
    std::vector<float> scales;
    formats::visit_rule(how_, {}, [&](auto const& rule) {
      for (float const a : amax_) scales.push_back(rule.file_scale(a));
    });
    return scales;
  }
  /// Of NVFP4.
  float tensor_scale() const { return detail::hf::tensor_scale(numerics_, tensor_amax_); }

  struct parts {
    std::vector<std::uint8_t> codes;
    std::vector<std::uint8_t> block_scales;  ///< E4M3 or E8M0, one a block, where scales are quantized themselves
  };

  /// Both from one pass over the weight.
  parts encode(B& device) const {
    auto const size = storage_size_of(how_, weight_, groups_);
    scaled_copy const scaled{device, *this};
    buffer<B, float> const amax = buffer_of(device, amax_), tensor_amax = buffer_of(device, tensor_amax_);
    buffer<B, float> tensor_scale{device, 1};
    buffer<B, std::uint8_t> codes{device, static_cast<std::size_t>(size.payload)};
    buffer<B, std::uint8_t> scales{device, static_cast<std::size_t>(size.scales)};
    encode_args args{scaled.view, groups_, amax.data(), how_, codes.data(), scales.data()};
    args.tensor_amax = tensor_amax.data();
    args.tensor_scale = tensor_scale.data();
    if (numerics_.groups_from_data) args.use = amax_use::data;
    device.encode(args);
    return {on_host(device, codes), how_.scaling == scale_rule::ratio ? std::vector<std::uint8_t>{}
                                                                      : on_host(device, scales)};
  }

  std::vector<std::uint8_t> codes(B& device) const { return encode(device).codes; }
  /// Encodes the weight once more: in the file they lie apart from the codes, and holding them until their turn would
  /// take the memory of a checkpoint.
  std::vector<std::uint8_t> block_scales(B& device) const { return encode(device).block_scales; }

 private:
  /// The weight as its quantizer scales it; the weight itself where it does not.
  struct scaled_copy {
    buffer<B, std::byte> memory;
    const_tensor_ref view;

    scaled_copy(B& device, hf_encoding const& e) : view{e.weight_} {
      if (e.factors_.empty()) return;
      geometry const dense = dense_like(e.weight_);
      memory = buffer<B, std::byte>{device, static_cast<std::size_t>(dense.bytes())};
      tensor_ref const to{dense, memory.data()};
      device.scale_channels({e.weight_, to, dense.rank - 1, dense.shape[dense.rank - 1], e.factors_.data()});
      view = to;
    }
  };

  static std::vector<std::uint8_t> on_host(B& device, buffer<B, std::uint8_t> const& from) {
    std::vector<std::uint8_t> host(from.size());
    device.copy_to_host(host.data(), from.data(), host.size());
    return host;
  }

  const_tensor_ref weight_;
  partition groups_;
  quantizer_numerics numerics_;
  format how_;
  buffer<B, float> factors_;
  std::vector<float> amax_;
  float tensor_amax_ = 0;
};

}  // namespace mixbit
