// What a search over the small network is given.
#pragma once

#include "mixbit/autoquant/search.hpp"
#include "support/small_network.hpp"

namespace mixbit::test {

inline matrix const search_batch = random_matrix(6, 32, 7);

inline search_options three_formats(double bits) {
  search_options o;
  o.formats = {preset("INT8_DEFAULT_CFG"), preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("FP8_DEFAULT_CFG")};
  o.target = bits;
  return o;
}

/// Each step sees the batch a tenth larger than the step before.
inline search_steps search_steps_of(small_network& net, int calibration = 2, int scoring = 2) {
  auto const forward = [&net](int i) { return net.forward(search_batch * (1.0f + 0.1f * static_cast<float>(i))); };
  return {calibration, scoring, [=](int i) { forward(i); },
          [=, &net](int i) {
            forward(i);
            net.backward(random_matrix(6, 8, 20));
          },
          {}};
}

}  // namespace mixbit::test
