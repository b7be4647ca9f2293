// Views that the tests of the kernels do not have: axes that run backwards, an axis that repeats one row, and as many
// axes as a tensor may have. A backend B has to make of one what reference::scalar makes of its dense copy.
#pragma once

#include <doctest/doctest.h>

#include "mixbit/reference/scalar.hpp"
#include "kernels/kernel_test.hpp"
#include "support/format_data.hpp"

namespace kernel_tests {

inline std::vector<format> formats_of_views() {
  return {{},
          {e4m3_element},
          {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs},
          {integer_element(3), policy::stored, dtype::bf16, packing::dense_rows},
          {nf4_element, policy::stored, dtype::f32, packing::nibbles_high_first},
          {e2m1_element, policy::stored, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv},
          {e2m1_element, policy::stored, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level}};
}

/// A view of `g`'s elements: axes of `backwards` (a bit each) run from their end, all of axis `repeated` is its first
/// index. Its data has to be moved by `origin` elements.
struct odd_view {
  geometry g;
  std::int64_t origin = 0;

  odd_view(geometry const& dense, unsigned backwards, int repeated) : g{dense} {
    for (int a = 0; a < g.rank; ++a) {
      if (a == repeated) g.stride[a] = 0;
      if ((backwards >> a & 1u) == 0) continue;
      origin += (g.shape[a] - 1) * g.stride[a];
      g.stride[a] = -g.stride[a];
    }
  }
};

/// What the quantizing kernels make of a view, element by element in the order of its axes.
template <class T>
struct view_outcome {
  std::vector<std::uint32_t> fake, decoded;
  std::vector<std::uint8_t> codes, scales;
  std::vector<float> amax;
  friend bool operator==(view_outcome const&, view_outcome const&) = default;
};

template <class T>
std::vector<std::uint32_t> bits_in_order(tensor_ref const& t) {
  std::vector<std::uint32_t> bits;
  for (std::int64_t i = 0; i < t.size(); ++i) {
    std::int64_t at = 0, rest = i;
    for (int a = t.rank - 1; a >= 0; --a) {
      at += rest % t.shape[a] * t.stride[a];
      rest /= t.shape[a];
    }
    bits.push_back(bits_of(t.as<T>()[at]));
  }
  return bits;
}

/// `y` is where results go, of x's shape.
template <class B, class T>
view_outcome<T> outcome_of(const_tensor_ref const& x, tensor_ref const& y, partition const& groups, format const& how) {
  view_outcome<T> o;
  B backend;
  o.amax.assign(static_cast<std::size_t>(groups.group_count()), 0.0f);
  backend.amax({x, groups, o.amax.data(), nullptr});
  float const tensor_amax = 3.0f;
  backend.fake_quantize({x, y, groups, o.amax.data(), how, nullptr, &tensor_amax});
  o.fake = bits_in_order<T>(y);
  auto const size = storage_size_of(how, x, groups);
  o.codes.resize(static_cast<std::size_t>(size.payload));
  o.scales.resize(static_cast<std::size_t>(size.scales));
  float tensor_scale = 0;
  float* const second = is_two_level(how.scaling) ? &tensor_scale : nullptr;
  backend.encode({x, groups, o.amax.data(), how, o.codes.data(), o.scales.data(), nullptr, &tensor_amax, second});
  backend.decode({o.codes.data(), o.scales.data(), groups, how, y, second});
  o.decoded = bits_in_order<T>(y);
  return o;
}

template <class B, class T>
void compare_view(std::vector<std::int64_t> const& shape, unsigned backwards, int repeated) {
  geometry const dense = dense_geometry(dtype_of<T>::value, shape);
  odd_view const odd{dense, backwards, repeated}, target{dense, backwards, -1};
  tensor<T> memory{dense}, copy{dense}, y{dense}, expected_y{dense};
  fill(memory, backwards + 3);
  const_tensor_ref const x{odd.g, memory.data() + odd.origin};
  for (std::int64_t i = 0; i < dense.size(); ++i) {
    std::int64_t at = 0, rest = i;
    for (int a = dense.rank - 1; a >= 0; --a) {
      at += rest % dense.shape[a] * odd.g.stride[a];
      rest /= dense.shape[a];
    }
    copy[i] = x.as<T>()[at];
  }
  for (auto const& part : partitions_of(dense))
    for (format const& how : formats_of_views()) {
      if (how.scaling != scale_rule::ratio && !line_axis(part.groups)) continue;
      INFO(to_string(dense), " ", part.name, " ", name_of(how), " backwards ", backwards, " repeated ", repeated);
      auto const expected = outcome_of<reference::scalar, T>(copy.view(), expected_y.ref(), part.groups, how);
      auto const found = outcome_of<B, T>(x, {target.g, y.data() + target.origin}, part.groups, how);
      if (!(found == expected)) FAIL_CHECK("another result than of the dense copy");
      CHECK(margins_untouched(y));
    }
}

template <class B>
void odd_views_agree() {
  for (std::vector<std::int64_t> const& shape :
       {std::vector<std::int64_t>{45}, {6, 40}, {5, 33}, {3, 4, 17}, {2, 1, 3, 2, 1, 19}, {1, 2, 2, 1, 3, 16}})
    for (unsigned const backwards : {0u, 1u, 2u, 3u, 1u << (shape.size() - 1)}) {
      if (backwards >> shape.size() != 0) continue;
      compare_view<B, float>(shape, backwards, -1);
      compare_view<B, half>(shape, backwards, -1);
      for (int a = 0; a < static_cast<int>(shape.size()); a += 2)
        if ((backwards >> a & 1u) == 0) compare_view<B, float>(shape, backwards, a);
    }
}

}  // namespace kernel_tests
