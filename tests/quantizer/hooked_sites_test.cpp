#include "mixbit/quantizer/hooked_sites.hpp"

#include <doctest/doctest.h>

#include "mixbit/reference/scalar.hpp"

using namespace mixbit;

namespace {

using cpu = reference::scalar;

struct idle final : apply_hook<cpu> {
  void on_apply(site<cpu>&, workspace<cpu>&, operands, erased_op&, pending<cpu>*) override {}
  void on_tensor(site<cpu>&, workspace<cpu>&, std::size_t, tensor_ref) override {}
  bool runs_active_recipe() const override { return false; }
};

}  // namespace

TEST_CASE("hooked_sites: hooks are on for its length, each puts back what it found, and an early release is final") {
  std::vector const sites{std::make_shared<site<cpu>>(), std::make_shared<site<cpu>>()};
  idle outer, inner;
  {
    hooked_sites<cpu> const all{sites, outer};
    CHECK(sites[0]->live);
    CHECK(all.place(*sites[1]) == 1);
    {
      hooked_sites<cpu> const one{{sites[1]}, inner};
      CHECK(sites[0]->hook == &outer);
      CHECK(sites[1]->hook == &inner);
    }
    CHECK(sites[1]->hook == &outer);
  }
  CHECK(sites[0]->hook == nullptr);
  CHECK_FALSE(sites[0]->live);
  {
    hooked_sites<cpu> all{sites, outer};
    all.release(*sites[0]);
    CHECK(sites[0]->hook == nullptr);
    hooked_sites<cpu> const later{{sites[0]}, inner};
    all.release(*sites[0]);  // another's by now
    CHECK(sites[0]->hook == &inner);
  }
  CHECK(sites[0]->hook == nullptr);
  CHECK(sites[1]->hook == nullptr);
}
