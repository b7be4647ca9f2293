// A host with layers that runtimes fuse: q/k/v read one input, and o what they sum up to.
#pragma once

#include "support/checkpoint_host.hpp"

namespace mixbit::test {

struct fused_host {
  plain_tensor wq = waves({8, 16}, 0.7f), wk = waves({8, 16}, 1.3f, 0.5f), wv = waves({8, 16}, 2.1f, 2.0f),
               wo = waves({16, 8}, 0.9f);
  quantizer_slots<cpu_backend> q, k, v, o;

  plain_tensor forward(plain_tensor const& x) {
    plain_tensor sum = apply(q, x, wq, multiply);
    plain_tensor const b = apply(k, x, wk, multiply), c = apply(v, x, wv, multiply);
    for (std::size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += b.values[i] * c.values[i];
    return apply(o, sum, wo, multiply);
  }
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("attn.q_proj", q, wq));
    visit(linear("attn.k_proj", k, wk));
    visit(linear("attn.v_proj", v, wv));
    visit(linear("attn.o_proj", o, wo));
  }
};

/// Inputs whose channels have very different magnitudes.
inline plain_tensor uneven(std::int64_t rows, std::int64_t width, float step = 0.37f) {
  plain_tensor x = waves({rows, width}, step);
  for (std::size_t i = 0; i < x.values.size(); ++i)
    x.values[i] *= i % 3 == 0 ? 8.0f : i % 5 == 0 ? 0.1f : 1.0f;
  return x;
}

/// The module's quantizer in that role under the active recipe, on or off.
inline sequential_quantizer<cpu_backend>& quantizer_in(quantizer_slots<cpu_backend>& slots, quantizer_role role) {
  for (auto& q : slots.shared_site()->quantizers().quantizers)
    if (q.role() == role) return q;
  fail(error_id::state_missing, "no such quantizer");
}

}  // namespace mixbit::test
