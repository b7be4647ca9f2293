// A small host of two linear layers, an input for it, and a look at its quantizers.
#pragma once

#include <doctest/doctest.h>

#include "support/checkpoint_host.hpp"

namespace mixbit::test {

/// Two linear layers in a row.
struct chain {
  plain_tensor w1 = waves({6, 8}, 0.7f), w2 = waves({4, 6}, 0.9f);
  quantizer_slots<cpu_backend> s1, s2;
  plain_tensor forward(plain_tensor const& x) { return apply(s2, apply(s1, x, w1, multiply), w2, multiply); }
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("mlp.up", s1, w1));
    visit(linear("mlp.down", s2, w2));
  }
};

inline plain_tensor const batch = waves({5, 8}, 0.3f);

inline tensor_quantizer<cpu_backend>& quantizer(quantizer_slots<cpu_backend>& slots, quantizer_role role) {
  auto* const q = slots.shared_site()->quantizers().find(role);
  REQUIRE(q != nullptr);
  return q->members().front();
}
inline std::vector<float> amax(quantizer_slots<cpu_backend>& slots, quantizer_role role) {
  cpu_backend device;
  return quantizer(slots, role).amax(device);
}

}  // namespace mixbit::test
