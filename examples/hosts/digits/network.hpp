// The network: two convolutions and two linear layers, with ReLUs between. 9,736 weights for [images, 1, 8, 8].
#pragma once

#include <cstdint>

#include "data.hpp"
#include "layers.hpp"
#include "mixbit/model/module.hpp"

namespace digits {

class network {
 public:
  conv2d conv1, conv2;
  linear fc1, fc2;

  explicit network(std::uint32_t seed) : network{random_source{seed}} {}

  /// [images, 1, 8, 8] to [images, 10]; layers keep what backward needs.
  matrix logits(tensor4 const& images);
  /// For the last forward.
  void backward(matrix const& grad_logits);

  /// How mixbit sees the network: a name, the slots and the weight of each layer.
  template <class Visit>
  void walk(Visit&& visit) {
    visit(mixbit::conv2d("conv1", conv1.slots, conv1.weight.value));
    visit(mixbit::conv2d("conv2", conv2.slots, conv2.weight.value));
    visit(mixbit::linear("fc1", fc1.slots, fc1.weight.value));
    visit(mixbit::linear("fc2", fc2.slots, fc2.weight.value));
  }

  /// Calls visit(name, parameter) for every trained tensor.
  template <class Visit>
  void for_each_parameter(Visit&& visit) {
    auto const both = [&](std::string const& name, auto& layer) {
      visit(name + ".weight", layer.weight);
      visit(name + ".bias", layer.bias);
    };
    both("conv1", conv1);
    both("conv2", conv2);
    both("fc1", fc1);
    both("fc2", fc2);
  }

 private:
  explicit network(random_source random)
      : conv1{1, 8, {3, 1, 1}, random},
        conv2{8, 16, {3, 2, 1}, random},
        fc1{16 * 4 * 4, 32, random},
        fc2{32, classes, random} {}
};

}  // namespace digits
