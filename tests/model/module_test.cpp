// What a walk may show: modules that cannot be quantized are refused by name.
#include "mixbit/model/module.hpp"

#include <doctest/doctest.h>

#include "support/error_text.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// A walk of one linear layer, as given.
struct one_module {
  module_ref<cpu_backend> shown;
  void walk(module_visitor<cpu_backend> const& visit) { visit(shown); }
};

std::string refusal(error_id id, module_ref<cpu_backend> shown) {
  one_module host{std::move(shown)};
  model<cpu_backend> m{host};
  quantize_config const weights{
      .name = "w",
      .entries = {{.quantizer_name = "*", .enable = false},
                  {.quantizer_name = "*weight_quantizer", .cfg = {{quantizer_attribute_config{.num_bits = 8}}}}},
      .algorithm = "max"};
  return error_text(id, [&] { quantize(m, weights); });
}

}  // namespace

TEST_CASE("walk: a module without slots, or with a weight that cannot be quantized, is refused by name") {
  quantizer_slots<cpu_backend> slots;
  float values[16] = {};
  tensor_ref const good{dense_geometry(dtype::f32, {4, 4}), values};
  CHECK(refusal(error_id::usage, {"fc", "nn.Linear", &slots, good, {}}) == "(no error)");
  CHECK(says(refusal(error_id::state_missing, {"fc", "nn.Linear", nullptr, good, {}}), "fc: ", "no slots"));
  auto far = good;
  far.where = device::cuda;
  CHECK(says(refusal(error_id::tensor_layout, {"fc", "nn.Linear", &slots, far, {}}),
             "fc: its weight is in CUDA memory"));
  auto integers = good;
  integers.type = dtype::i8;
  CHECK(says(refusal(error_id::tensor_dtype, {"fc", "nn.Linear", &slots, integers, {}}), "fc", "int8"));
  tensor_ref const unallocated{dense_geometry(dtype::f32, {4, 4}), nullptr}, none{},
      empty{dense_geometry(dtype::f32, {0, 4}), values};
  for (auto const& weight : {unallocated, none, empty})
    CHECK(says(refusal(error_id::state_not_calibrated, {"fc", "nn.Linear", &slots, weight, {}}),
               "fc.weight_quantizer: the walk gives a weight without elements or without data"));
}
