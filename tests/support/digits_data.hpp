// What the tests of the xtensor host share: its data, random tensors, comparison to the bit.
#pragma once

#include <cstring>

#include "digits/training.hpp"

namespace digits_test {

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

template <class Tensor>
bool same_bits(Tensor const& a, Tensor const& b) {
  return a.shape() == b.shape() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace digits_test
