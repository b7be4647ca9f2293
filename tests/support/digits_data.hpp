// What the tests of the xtensor host share: its data, random tensors, comparison to the bit.
#pragma once

#include "digits/training.hpp"
#include "support/same_bits.hpp"

namespace digits_test {

using mixbit::test::same_bits;

inline digits::split_set const& data() {
  static auto const all = digits::split(digits::read_digits(MIXBIT_DATA_DIR "/digits.csv"));
  return all;
}

template <class Tensor>
Tensor random_tensor(typename Tensor::shape_type const& shape, digits::random_source& random) {
  Tensor t = Tensor::from_shape(shape);
  for (float& v : t.storage()) v = random.uniform(1.0f);
  return t;
}

}  // namespace digits_test
