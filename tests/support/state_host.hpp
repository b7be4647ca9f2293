// The host whose states lie in tests/golden/state.
#pragma once

#include "support/checkpoint_host.hpp"

namespace mixbit::test {

/// A layer for each thing that a state holds.
struct state_host {
  plain_tensor scaled{6, 10}, sequence{4, 10}, packed{5, 10}, learned{3, 10};
  quantizer_slots<cpu_backend> s_scaled, s_sequence, s_packed, s_learned, s_attention;

  void walk(module_visitor<cpu_backend> const& visit) {
    visit(linear("scaled", s_scaled, scaled));
    visit(linear("sequence", s_sequence, sequence));
    visit(linear("packed", s_packed, packed));
    visit(linear("learned", s_learned, learned));
    visit(module("attention", "attention", s_attention));
  }

  /// Every layer's product, as `op` makes it, and then the quantizers of the attention on k.
  template <class Op>
  void run(plain_tensor const& x, plain_tensor& k, Op const& op) {
    apply(s_scaled, x, scaled, op);
    apply(s_sequence, x, sequence, op);
    apply(s_packed, x, packed, op);
    apply(s_learned, x, learned, op);
    apply(s_attention, k, 1);
  }
};

}  // namespace mixbit::test
