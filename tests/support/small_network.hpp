// Two linear layers in row-major Eigen with a hand-written backward: the smallest host that does everything.
#pragma once

#include <algorithm>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/mixbit.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/same_bits.hpp"

namespace mixbit::test {

using cpu_backend = reference::scalar;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline matrix random_matrix(Eigen::Index rows, Eigen::Index columns, unsigned seed) {
  std::mt19937 generator{seed};
  std::normal_distribution<float> normal;
  matrix m(rows, columns);
  for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = normal(generator);
  return m;
}

struct linear_layer {
  matrix weight, input;
  quantizer_slots<cpu_backend> slots;

  static auto product() {
    return [](auto const& x, auto const& w) -> matrix { return x * w.transpose(); };
  }
  matrix forward(matrix const& x) {
    if (!slots.in_trial()) input = x;
    return apply(slots, x, weight, product());
  }
  matrix backward(matrix const& grad_y, matrix* grad_weight = nullptr) {
    score(slots, input, weight, product(), grad_y);
    matrix grad_x;
    lend(slots, input, weight, [&](auto const& xq, auto const& wq) {
      grad_x = grad_y * wq;
      if (grad_weight) *grad_weight = grad_y.transpose() * xq;
    });
    input_backward(slots, input, grad_x);
    if (grad_weight) weight_backward(slots, weight, *grad_weight);
    return grad_x;
  }
};

struct small_network {
  linear_layer first, second;

  explicit small_network(unsigned seed = 1)
      : first{random_matrix(24, 32, seed), {}, {}}, second{random_matrix(8, 24, seed + 1), {}, {}} {}

  matrix forward(matrix const& x) { return second.forward(first.forward(x)); }
  matrix backward(matrix const& grad_y) { return first.backward(second.backward(grad_y)); }

  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("first", first.slots, first.weight));
    visit(linear("second", second.slots, second.weight));
  }
};

/// Q(x) as the backend computes it, for one quantizer of a model.
inline matrix by_hand(sequential_quantizer<cpu_backend>& q, matrix const& x) {
  matrix y = x;
  cpu_backend device;
  arena scratch;
  q.quantize(device, scratch, read_view(x), write_view(y));
  return y;
}

inline site<cpu_backend>& site_of(linear_layer& layer) { return *layer.slots.shared_site(); }

/// The layer's quantizer in that role, on or off, and its (first) amax.
inline sequential_quantizer<cpu_backend>& quantizer_of(linear_layer& layer, quantizer_role role) {
  for (auto& q : site_of(layer).quantizers().quantizers)
    if (q.role() == role) return q;
  throw std::runtime_error{"no such quantizer"};
}
inline std::vector<float> amax_of(linear_layer& layer, quantizer_role role) {
  cpu_backend device;
  return quantizer_of(layer, role).members().front().amax(device);
}

/// Inputs of which every fifth channel is large: what SmoothQuant and AWQ are for.
inline matrix outliers(Eigen::Index rows, Eigen::Index width, unsigned seed = 7) {
  matrix x = random_matrix(rows, width, seed);
  for (Eigen::Index c = 0; c < width; c += 5) x.col(c) *= 30;
  return x;
}

/// Is there a note with both texts in it?
inline bool mentions(std::vector<std::string> const& notes, std::string_view a, std::string_view b) {
  return std::any_of(notes.begin(), notes.end(),
                     [&](auto const& n) { return n.find(a) != n.npos && n.find(b) != n.npos; });
}

}  // namespace mixbit::test
