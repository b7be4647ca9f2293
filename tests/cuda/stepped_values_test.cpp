// All 65 536 float16 and all bfloat16 values, and every float32 near a boundary, through the stepped CUDA kernels: the
// bits of reference::scalar, which tests/kernels/every_value_test.cpp holds to the rules element by element.
#include "cuda/format_cases.hpp"
#include "cuda/stepping.hpp"
#include "kernels/boundaries.hpp"
#include "kernels/kernel_calls.hpp"

using namespace cuda_tests;
using kernel_tests::call;

namespace {

constexpr std::int64_t rows = 512, columns = 128;

template <class T>
tensor<T> every_value() {
  tensor<T> all{dense_geometry(dtype_of<T>::value, {rows, columns})};
  for (std::int64_t i = 0; i < rows * columns; ++i) all[i] = T{static_cast<std::uint16_t>(i)};
  return all;
}

template <class T>
std::vector<unsigned char> bytes_of(std::vector<T> const& values) {
  auto const* const first = reinterpret_cast<unsigned char const*>(values.data());
  return with_one_nan<T>({first, first + values.size() * sizeof(T)});
}

template <class T>
void compare_values(tensor<T> const& x, call const& c) {
  using kernel_tests::decoded, kernel_tests::encoded, kernel_tests::quantized;
  CAPTURE(name_of(c.how));
  CAPTURE(c.amax.empty());
  CHECK(bytes_of(quantized<stepped>(x, x.g, c, false)) == bytes_of(quantized<reference::scalar>(x, x.g, c, false)));
  auto const codes = encoded<reference::scalar>(x, c);
  CHECK(encoded<stepped>(x, c) == codes);
  CHECK(bytes_of(decoded<stepped, T>(x.g, c, codes)) == bytes_of(decoded<reference::scalar, T>(x.g, c, codes)));
}

void compare_both(call const& c) {
  compare_values(every_value<half>(), c);
  compare_values(every_value<bfloat16>(), c);
}

}  // namespace

TEST_CASE("stepped CUDA kernels: every value of 16 bits, one scale a tensor") {
  auto const groups = per_tensor(dense_geometry(dtype::f32, {rows, columns}));
  for (auto const& e : minifloats_and({integer_element(8)}))
    for (policy const p : {policy::stored, policy::modelopt})
      for (float const amax : {6.0f, 448.0f, 1.3e-3f})
        compare_both({groups, {amax}, {e, p, dtype::f32, packing::dense_rows}, 1.0f});
}

TEST_CASE("stepped CUDA kernels: every value of 16 bits, blocks with scales of their own") {
  auto const shape = dense_geometry(dtype::f32, {rows, columns});
  std::vector<axis_block> const small{{-1, 16}}, large{{-1, 32}};
  for (policy const p : {policy::stored, policy::modelopt}) {
    for (auto const& e : minifloats_and({integer_element(8)}))
      compare_both({blocks_of(shape, large), {}, {e, p, dtype::f8_e8m0, packing::dense_rows, scale_rule::mx_nv}, 1.0f});
    for (scale_rule const r : {scale_rule::two_level, scale_rule::four_over_six})
      compare_both({blocks_of(shape, small), {}, {e2m1_element, p, dtype::f8_e4m3, packing::dense_rows, r}, 3.0f});
  }
}

TEST_CASE("stepped CUDA kernels: every float32 near a boundary, one scale a tensor") {
  geometry const shape = dense_geometry(dtype::f32, {rows, columns});
  for (element_type const& e : minifloat_elements)
    for (float const amax : {6.0f, 1.3e-3f}) {
      format const how{e, policy::stored, dtype::f32, packing::dense_rows};
      float const step = formats::visit_rule(how, {}, [&](auto const& rule) { return rule.file_scale(amax); });
      auto const values = kernel_tests::near_boundaries(e, step, rows * columns);
      tensor<float> x{shape};
      for (std::int64_t i = 0; i < rows * columns; ++i) x[i] = values[static_cast<std::size_t>(i)];
      compare_values(x, {per_tensor(shape), {amax}, how, 1.0f});
    }
}
