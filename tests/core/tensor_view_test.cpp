#include "mixbit/core/tensor_view.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("permuted: axis i of the result is axis order[i]") {
  const_tensor_ref const t{dense_geometry(dtype::f32, {2, 3, 4}), nullptr};
  std::vector<std::int8_t> const order{2, 0, 1};
  auto const p = permuted(t, order);
  CHECK(to_string(p) == "[4,2,3]");
  CHECK(p.stride[0] == 1);
  CHECK(p.stride[1] == 12);
  CHECK(p.stride[2] == 4);
}

TEST_CASE("permuted: an order that is no permutation is refused with the order and the shape") {
  const_tensor_ref const t{dense_geometry(dtype::f32, {2, 3, 4}), nullptr};
  struct {
    std::vector<std::int8_t> order;
    char const* text;
  } const bad[] = {{{0, 1}, "{0,1}"},       {{0, 1, 2, 3}, "{0,1,2,3}"}, {{0, 1, 1}, "{0,1,1}"}, {{0, 1, 3}, "{0,1,3}"},
                   {{-1, 0, 1}, "{-1,0,1}"}, {{0, 1, 40}, "{0,1,40}"},    {{}, "{}"}};
  for (auto const& b : bad)
    CHECK(says(error_text(error_id::tensor_layout, [&] { permuted(t, b.order); }), b.text, "[2,3,4]"));
}
