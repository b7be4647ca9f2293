// A host whose layers follow operations that can take a scale: norm -> q, up; up -> down.
#pragma once

#include "support/fused_host.hpp"

namespace mixbit::test {

struct norm_host {
  plain_tensor norm = waves({16}, 1.1f), shift = waves({16}, 0.3f, 0.2f), wq = waves({6, 16}, 0.7f),
               wup = waves({10, 16}, 1.3f), up_bias = waves({10}, 0.5f, 0.1f), wdown = waves({4, 10}, 0.9f);
  quantizer_slots<cpu_backend> q, up, down;

  /// Rows of q's output and of down's, one behind the other.
  std::vector<float> forward(plain_tensor const& x) {
    plain_tensor h = x;
    for (std::size_t i = 0; i < h.values.size(); ++i)
      h.values[i] = h.values[i] * norm.values[i % 16] + shift.values[i % 16];
    auto all = apply(q, h, wq, multiply).values;
    plain_tensor u = apply(up, h, wup, multiply);
    for (std::size_t i = 0; i < u.values.size(); ++i) u.values[i] = (u.values[i] + up_bias.values[i % 10]) * 0.5f;
    auto const y = apply(down, u, wdown, multiply).values;
    all.insert(all.end(), y.begin(), y.end());
    return all;
  }
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("q_proj", q, wq));
    visit(linear("up_proj", up, wup));
    visit(linear("down_proj", down, wdown));
  }
};

}  // namespace mixbit::test
