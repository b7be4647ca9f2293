// What attention's quantizers see: heads of a matrix as a tensor of four axes, and what of them a backward can pass.
#pragma once

#include <algorithm>
#include <cstdint>

#include "layers.hpp"
#include "mixbit/core/tensor_traits.hpp"

namespace byte_lm {

/// [windows, heads, length, features] over a matrix of `heads · features` columns, whose rows are tokens. Not owned.
struct head_tensor {
  float* data;
  std::int64_t windows, heads, length, features;
};

/// A gradient passes a quantizer as if it were not there, which is ModelOpt's default; throws `config_conflict` for one
/// whose backward would do more, and for probabilities, of which only the quantized ones are kept.
inline void require_straight_through(mixbit::quantizer_slots<backend> const& slots) {
  if (!slots.live()) return;
  auto& recipe = slots.shared_site()->quantizers();
  for (auto const& q : recipe.quantizers) {
    bool const more = q.transforms() || std::any_of(q.members().begin(), q.members().end(), [](auto const& m) {
                        return m.clips() || m.numerics().rotate;
                      });
    if (q.acts() && (more || q.leaf() == "softmax_quantizer"))
      mixbit::fail(mixbit::error_id::config_conflict, q.path(), ": byte_lm computes gradients of quantized ",
                   "queries, keys and values as if they were not, without rotations, scales or clipping; disable it ",
                   "to train");
  }
}

}  // namespace byte_lm

template <>
struct mixbit::tensor_traits<byte_lm::head_tensor> {
  static mixbit::geometry shape_of(byte_lm::head_tensor const& t) {
    auto g = mixbit::dense_geometry(mixbit::dtype::f32, {t.windows, t.heads, t.length, t.features});
    g.stride[0] = t.length * t.heads * t.features;
    g.stride[1] = t.features;
    g.stride[2] = t.heads * t.features;
    return g;
  }
  static mixbit::const_tensor_ref view(byte_lm::head_tensor const& t) { return {shape_of(t), t.data}; }
  static mixbit::tensor_ref view(byte_lm::head_tensor& t) { return {shape_of(t), t.data}; }
};
