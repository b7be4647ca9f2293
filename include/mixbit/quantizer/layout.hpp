// What a host's axes mean. Configs speak of PyTorch's order (linear weight [out, in], input [..., in]; convolution
// weight [out, in/groups, k...], input [batch, in, ...]); a layout says how the host's axes map to it. Strides are
// permuted, nothing is copied.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "mixbit/core/tensor_view.hpp"

namespace mixbit {

/// Axis i of PyTorch's order is the host's axis order[i]. Without axes the host's order is PyTorch's.
struct axis_order {
  std::int8_t rank = 0;
  std::array<std::int8_t, max_rank> order{};

  constexpr axis_order() = default;
  /// Throws `tensor_layout` for more axes than a tensor has; in a constant expression it does not compile.
  constexpr axis_order(std::initializer_list<int> axes) : rank{static_cast<std::int8_t>(axes.size())} {
    if (axes.size() > max_rank)
      fail(error_id::tensor_layout, "an axis order of ", axes.size(), " axes: tensors have at most ", max_rank);
    int i = 0;
    for (int a : axes) order[i++] = static_cast<std::int8_t>(a);
  }
  friend constexpr bool operator==(axis_order const&, axis_order const&) = default;
  template <class Ref>
  Ref apply(Ref const& t) const {
    return rank == 0 ? t : permuted(t, {order.data(), static_cast<std::size_t>(rank)});
  }
};

/// Which operation a site is; decides where the input channels are.
enum class site_kind : std::uint8_t {
  linear,          ///< channels: last axis of the input, last axis of the weight
  conv,            ///< channels: axis 1 of both; with groups the weight has a divisor of the input's
  conv_transpose,  ///< channels: axis 1 of the input, axis 0 of the weight
  lookup,          ///< an embedding: weight [entries, features], no quantizable input
  tensor           ///< operands quantized one by one: attention, normalisation, pooling
};

struct site_layout {
  site_kind kind = site_kind::linear;
  axis_order input, weight, output;
  /// Do configs see the weight as [A, K]? A is its first axis in PyTorch's order (out; for conv_transpose, in), K all
  /// its other axes together.
  bool flat_weight = false;

  /// The same layout with the weight flattened: blocks of a convolution kernel then run over in·h·w values instead of
  /// its width. Blocks of 128 along the width of a 3×3 kernel are blocks of 3.
  constexpr site_layout flattened() const {
    site_layout l = *this;
    l.flat_weight = true;
    return l;
  }
  friend constexpr bool operator==(site_layout const&, site_layout const&) = default;
};

/// A weight as configs see it: PyTorch's axes, or [A, K]. Throws `tensor_layout` where the flattened axes do not lie
/// one behind the other in memory, so that no strides describe K.
template <class Ref>
Ref weight_view(site_layout const& l, Ref const& host) {
  Ref const w = l.weight.apply(host);
  if (!l.flat_weight || w.rank <= 2) return w;
  std::int64_t size = 1, step = 1;  // of the axes behind `a`; those of size 1 take no step, whatever their stride
  for (int a = w.rank - 1; a > 0; --a) {
    if (w.shape[a] == 1) continue;
    if (size == 1) step = w.stride[a];
    if (w.stride[a] != step * size)
      fail(error_id::tensor_layout, "a weight of shape ", to_string(w), " cannot be flattened: the axes behind axis ",
           a, " do not lie one behind the other within it in memory");
    size *= w.shape[a];
  }
  Ref flat = w;
  for (int a = 2; a < w.rank; ++a) {
    flat.shape[a] = 1;
    flat.stride[a] = 0;
  }
  flat.rank = 2;
  flat.shape[1] = size;
  flat.stride[1] = step;
  return flat;
}

/// The layouts that hosts usually have.
namespace layouts {
inline constexpr site_layout linear{};                                               // x [..., in], w [out, in]
inline constexpr site_layout linear_in_out{site_kind::linear, {}, {1, 0}, {}};         // w [in, out]
inline constexpr site_layout features_tokens{site_kind::linear, {1, 0}, {}, {1, 0}};  // x [in, tokens], y [out, tokens]
inline constexpr site_layout conv{site_kind::conv, {}, {}, {}};                        // NCHW, OIHW
inline constexpr site_layout conv_nhwc_hwio{site_kind::conv, {0, 3, 1, 2}, {3, 2, 0, 1}, {0, 3, 1, 2}};
inline constexpr site_layout conv_nhwc_ohwi{site_kind::conv, {0, 3, 1, 2}, {0, 3, 1, 2}, {0, 3, 1, 2}};
inline constexpr site_layout conv_transpose{site_kind::conv_transpose, {}, {}, {}};
inline constexpr site_layout lookup{site_kind::lookup, {}, {}, {}};
inline constexpr site_layout tensor{site_kind::tensor, {}, {}, {}};
}  // namespace layouts

/// Axis of the input channels in PyTorch's order; -1 where there is none.
constexpr int input_channel_axis(site_layout const& l, int rank) {
  switch (l.kind) {
    case site_kind::linear: return rank - 1;
    case site_kind::conv: case site_kind::conv_transpose: return rank > 1 ? 1 : -1;
    default: return -1;
  }
}
constexpr int weight_channel_axis(site_layout const& l, int rank) {
  switch (l.kind) {
    case site_kind::linear: return rank - 1;
    case site_kind::conv: return rank > 1 ? 1 : -1;
    case site_kind::conv_transpose: return 0;
    default: return -1;
  }
}

}  // namespace mixbit
