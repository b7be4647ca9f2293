#include "mixbit/quantizer/tensor_quantizer.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "mixbit/formats/storage.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/error_text.hpp"
#include "support/kernel_data.hpp"

using namespace mixbit;
using cpu = reference::scalar;

TEST_CASE("tensor_quantizer: calibrated NVFP4 blocks take the tensor's amax from theirs") {
  cpu device;
  arena scratch;
  quantizer_attribute_config a;
  a.num_bits = {2, 1};
  a.block_sizes = block_config{{{-1, 4}}, quantizer_type::static_type, bit_spec{4, 3}};
  tensor_quantizer<cpu> q{"w", a, policy::stored};
  std::vector<float> const x{0.1f, -0.2f, 0.3f, 0.4f, 5.0f, -6.0f, 1.0f, 2.0f};
  std::vector<float> y(8), expected(8);
  auto const view = dense_view(x.data(), {2, 4});
  q.observe(device, scratch, view);
  CHECK(q.amax(device) == std::vector<float>{0.4f, 6.0f});
  q.quantize(device, scratch, view, dense_view(y.data(), {2, 4}));
  float const amax[] = {0.4f, 6.0f}, tensor_amax = 6.0f;
  device.fake_quantize({view, dense_view(expected.data(), {2, 4}), q.grouping(view), amax, q.numerics().how, nullptr,
                        &tensor_amax});
  CHECK(y == expected);
}

TEST_CASE("tensor_quantizer: as many groups in another shape are refused") {
  cpu device;
  arena scratch;
  quantizer_attribute_config a;
  a.num_bits = 4;
  a.block_sizes = block_config{{{-1, 2}, {-2, 2}}};
  tensor_quantizer<cpu> q{"w", a, policy::stored};
  std::vector<float> const x(64, 1.0f);
  q.observe(device, scratch, dense_view(x.data(), {16, 4}));
  auto const other = [&] { q.observe(device, scratch, dense_view(x.data(), {4, 16})); };
  CHECK_MESSAGE(test::says(test::error_text(error_id::tensor_shape, other), "w: ", "8x2", "2x8"), "");
}

TEST_CASE("tensor_quantizer: what is adopted is the running max and the count of what was left out") {
  cpu device;
  arena scratch;
  using quantizer = tensor_quantizer<cpu>;
  quantizer seeing{"a", {}, policy::stored}, adopting{"b", {}, policy::stored}, set{"c", {}, policy::stored};
  std::vector<float> const x{1.0f, -3.0f, std::numeric_limits<float>::quiet_NaN(),
                             -std::numeric_limits<float>::infinity()};
  auto const view = dense_view(x.data(), {4});
  seeing.observe(device, scratch, view);
  set.set_amax(device, per_tensor(view), {9.0f});
  for (auto* q : {&adopting, &set}) {
    CHECK(q->nonfinite(device) == 0);
    q->adopt(device, seeing);
    CHECK(q->amax(device) == std::vector<float>{3.0f});
    CHECK(q->nonfinite(device) == 2);
  }
}

namespace {

/// NF4 in blocks of 16 with int8 scales.
quantizer_attribute_config double_quantized() {
  quantizer_attribute_config a;
  a.num_bits = 4;
  a.block_sizes = block_config{{{-1, 16}}, {}, bit_spec{8}, {{-1, 8}}};
  return a;
}

int copies = 0;  // to the host, which waits for a device

struct counting : reference::scalar {
  void copy_to_host(void* to, void const* from, std::size_t bytes) const {
    ++copies;
    reference::scalar::copy_to_host(to, from, bytes);
  }
};

}  // namespace

TEST_CASE("double quantization: scales are made once, when calibration ends, and nothing is cast before") {
  counting device;
  arena scratch;
  test_data::tensor<float> x{dense_geometry(dtype::f32, {6, 70})}, y{x.g}, expected{x.g};
  tensor_quantizer<counting> q{"w", double_quantized(), policy::stored}, set{"v", double_quantized(), policy::stored};
  auto const cast = [&] { q.quantize(device, scratch, x.view(), y.ref()); };
  auto const refused = [&] { return test::error_text(error_id::state_not_calibrated, cast); };
  copies = 0;
  q.finish(device);  // of a quantizer that saw nothing
  CHECK(test::says(refused(), "w: ", "saw no data"));
  for (unsigned const seed : {1u, 2u}) {  // calibration may go on
    test_data::fill(x, seed);
    q.observe(device, scratch, x.view());
    q.observe(device, scratch, x.view());
    CHECK(copies == 0);
    CHECK(test::says(refused(), "w: ", "finish"));
    q.finish(device);
    CHECK(copies == 1);
    cast();
    set.set_amax(device, q.groups(), q.amax(device));
    set.quantize(device, scratch, x.view(), expected.ref());
    CHECK(y.memory == expected.memory);
    copies = 0;
  }
}

TEST_CASE("double quantization: a quantizer casts with the scales that a file's codes stand for") {
  cpu device;
  arena scratch;
  test_data::tensor<float> x{dense_geometry(dtype::f32, {6, 70})}, y{x.g}, decoded{x.g};
  test_data::fill(x, 3);
  auto const a = double_quantized();
  tensor_quantizer<cpu> q{"w", a, policy::stored};
  q.observe(device, scratch, x.view());
  q.finish(device);
  auto const groups = q.grouping(x.g);
  auto const amax = q.amax(device);
  q.quantize(device, scratch, x.view(), y.ref());
  format const how = q.numerics().how;
  auto const scales = scale_values(quantize_scales(amax, how, dtype::f32), how, dtype::f32, amax.size());
  CHECK(scales != amax);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(storage_size_of(how, x.g, groups).payload));
  std::vector<float> used(scales.size());
  device.encode({x.view(), groups, scales.data(), how, codes.data(), used.data(), nullptr});
  CHECK(used == scales);
  device.decode({codes.data(), used.data(), groups, how, decoded.ref()});
  CHECK(y.memory == decoded.memory);
  tensor_quantizer<cpu> set{"w", a, policy::stored}, adopted{"w", a, policy::stored};
  set.set_amax(device, groups, amax);
  adopted.adopt(device, q);
  for (auto* other : {&set, &adopted}) {
    test_data::tensor<float> again{x.g};
    other->quantize(device, scratch, x.view(), again.ref());
    CHECK(again.memory == y.memory);
  }
}

TEST_CASE("tensor_quantizer: an amax whose scale the tensor's type cannot hold ends the calibration with an error") {
  cpu device;
  arena scratch;
  quantizer_attribute_config a;
  a.num_bits = 4;
  a.block_sizes = block_config{{{-1, 2}}};
  tensor_quantizer<cpu> packed{"w", a, policy::modelopt_pack}, stored{"w", a, policy::stored};
  half const x[] = {from_float<half>(1.0f), from_float<half>(0.5f), from_float<half>(0x1p-20f), from_float<half>(0)};
  auto const view = dense_view(x, {1, 4});
  for (auto* q : {&packed, &stored}) q->observe(device, scratch, view);
  // ModelOpt's INT4 divides: 7/2^-20 is beyond float16's 65504
  CHECK(test::says(test::error_text(error_id::format_amax, [&] { packed.finish(device); }), "w: amax[1]", "float16"));
  CHECK_NOTHROW(stored.finish(device));
  auto const set = [&] { packed.set_amax(device, packed.groups(), {1.0f, 0x1p-20f}); };
  CHECK(test::says(test::error_text(error_id::format_amax, set), "w: amax[1]", "float16"));
  tensor_quantizer<cpu> wide{"w", a, policy::modelopt_pack};
  float const y[] = {1.0f, 0.5f, 0x1p-20f, 0.0f};
  wide.observe(device, scratch, dense_view(y, {1, 4}));
  CHECK_NOTHROW(wide.finish(device));
}
