// What is refused is refused before anything is written: an operand that is quantized in place is then as it was.
#include <doctest/doctest.h>

#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

using sequence = sequential_quantizer<cpu_backend>;

quantizer_attribute_config const per_token{.num_bits = 8, .type = quantizer_type::dynamic_type,
                                           .block_sizes = block_config{.axes = {{-1, std::nullopt}}}};

sequence input_of(std::vector<quantizer_attribute_config> const& members) {
  return {"input_quantizer", "fc.input_quantizer", quantizer_role::input, true, members, policy::stored};
}

/// The message of the refusal of x, which has to be untouched by it.
std::string refused(error_id id, sequence& q, matrix const& x) {
  cpu_backend device;
  arena scratch;
  matrix in_place = x;
  auto const cast = [&] { q.quantize(device, scratch, read_view(in_place), write_view(in_place)); };
  std::string const text = error_text(id, cast);
  CHECK(same_bits(in_place, x));
  return text;
}

}  // namespace

TEST_CASE("untouched: an input that is scaled, under a quantizer that is not calibrated or was for another width") {
  cpu_backend device;
  matrix const x = random_matrix(3, 16, 11);
  auto q = input_of({{.num_bits = 8, .axis = -1}});
  q.set_pre_quant_scale(device, std::vector<float>(16, 2.0f));
  CHECK(says(refused(error_id::state_not_calibrated, q, x), "fc.input_quantizer", "saw no data"));
  matrix const other = random_matrix(3, 12, 11);
  arena scratch;
  q.members()[0].observe(device, scratch, read_view(other));
  CHECK(says(refused(error_id::tensor_shape, q, x), "fc.input_quantizer", "12 groups", "16"));
}

TEST_CASE("untouched: an input of several quantizers whose last one refuses it") {
  matrix const x = random_matrix(3, 16, 11);
  auto uncalibrated = input_of({per_token, {.num_bits = bit_spec{4, 3}}});
  CHECK(says(refused(error_id::state_not_calibrated, uncalibrated, x), "fc.input_quantizer.1", "saw no data"));
  quantizer_attribute_config unsigned_bits{.num_bits = 8, .type = quantizer_type::dynamic_type};
  unsigned_bits.is_unsigned = true;
  auto negative = input_of({per_token, unsigned_bits});
  CHECK(says(refused(error_id::format_unsigned, negative, x), "fc.input_quantizer.1", "negative"));
  quantizer_attribute_config rotated{.num_bits = 8, .type = quantizer_type::dynamic_type};
  rotated.rotate = true;
  rotated.rotate.block_size = 32;
  auto absent = input_of({per_token, {.num_bits = 8, .axis = 2, .type = quantizer_type::dynamic_type}});
  CHECK(says(refused(error_id::format_value, absent, x), "fc.input_quantizer.1", "axis 2"));
  quantizer_attribute_config shifted{.num_bits = 8, .type = quantizer_type::dynamic_type};
  shifted.bias = bias_config{.axes = {3}, .type = quantizer_type::dynamic_type};
  auto deep = input_of({per_token, shifted});
  CHECK(says(refused(error_id::format_value, deep, x), "fc.input_quantizer.1", "axis 3"));
  auto narrow = input_of({per_token, rotated});
  CHECK(says(refused(error_id::tensor_shape, narrow, x), "fc.input_quantizer.1", "block_size 32"));
}

TEST_CASE("untouched: a sequence of quantizers gives what each makes of the one's before, unsigned ones too") {
  matrix const x = random_matrix(3, 16, 11).cwiseAbs();
  quantizer_attribute_config unsigned_bits{.num_bits = 3, .type = quantizer_type::dynamic_type};
  unsigned_bits.is_unsigned = true;
  auto both = input_of({per_token, unsigned_bits});
  auto first = input_of({per_token}), second = input_of({unsigned_bits});
  CHECK(same_bits(by_hand(both, x), by_hand(second, by_hand(first, x))));
}

TEST_CASE("untouched: a constant amax whose scale the tensor's type cannot hold is refused with its value") {
  cpu_backend device;
  arena scratch;
  tensor_quantizer<cpu_backend> q{"fc.weight_quantizer", {.num_bits = 4, .constant_amax = 1e-5}, policy::modelopt_pack};
  std::vector<half> x(8, from_float<half>(0.5f)), y = x;
  std::vector<bfloat16> wide(8, from_float<bfloat16>(0.5f));
  auto const cast = [&] {
    q.quantize(device, scratch, dense_view(std::as_const(x).data(), {8}), dense_view(y.data(), {8}));
  };
  CHECK(says(error_text(error_id::format_amax, cast), "fc.weight_quantizer: ", "amax[0] is 1e-05", "float16"));
  CHECK(y == x);
  CHECK_NOTHROW(q.quantize(device, scratch, dense_view(std::as_const(wide).data(), {8}),
                           dense_view(wide.data(), {8})));  // 7e5 is one of bfloat16's
}
