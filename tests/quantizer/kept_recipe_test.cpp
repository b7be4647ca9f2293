#include "mixbit/quantizer/kept_recipe.hpp"

#include <doctest/doctest.h>

#include "mixbit/reference/scalar.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

using cpu_backend = reference::scalar;

kept_tensor zeros(std::initializer_list<std::int64_t> shape, dtype type = dtype::f32) {
  auto const g = dense_geometry(type, shape);
  return {g, std::vector<std::byte>(static_cast<std::size_t>(g.bytes()))};
}

/// What taking up this branch for a layer with a [4,3] weight says.
std::string taking_up(kept_branch branch) {
  float const weight[12] = {};
  cpu_backend device;
  recipe_quantizers<cpu_backend> recipe{"INT4", {}};
  kept_recipe const kept{"mlp.up", "INT4", {}, {}, {}, std::move(branch)};
  auto const text = error_text(error_id::file_content, [&] {
    take_up_recipe(recipe, kept, dense_view(weight, {4, 3}), device, {});
  });
  CHECK(recipe.branch.has_value() == (text == "(no error)"));
  return text;
}

}  // namespace

TEST_CASE("kept recipe: a branch that does not fit the layer's weight is refused, since the host would run it") {
  CHECK(taking_up({zeros({2, 3}), zeros({4, 2}), zeros({4, 3})}) == "(no error)");
  CHECK(says(taking_up({zeros({2, 3}), zeros({5, 2}), zeros({4, 3})}), "mlp.up", "[5,2] · [2,3]", "weight [4,3]"));
  CHECK(says(taking_up({zeros({2, 9}), zeros({4, 2}), zeros({4, 3})}), "[4,2] · [2,9]"));
  CHECK(says(taking_up({zeros({1, 3}), zeros({4, 2}), zeros({4, 3})}), "[4,2] · [1,3]"));
  CHECK(says(taking_up({zeros({2, 3}), zeros({4, 2}), zeros({1})}), "and [1], and the layer's weight [4,3]"));
  CHECK(says(taking_up({zeros({6}), zeros({4, 2}), zeros({4, 3})}), "[4,2] · [6]"));
  CHECK(says(taking_up({zeros({2, 3}, dtype::f64), zeros({4, 2}), zeros({4, 3})}), "'branch'"));
  CHECK(says(taking_up({zeros({2, 3}), zeros({4, 2}), zeros({4, 3}, dtype::u8)}), "'branch'"));
}
