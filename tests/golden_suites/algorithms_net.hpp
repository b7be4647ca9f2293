// The network of golden suite algorithms: y = fc2(gelu(fc1(x))), with the exact gelu, and the batches it was calibrated
// on. A host of its own: two linear layers with a bias.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/adapters/eigen_linalg.hpp"
#include "mixbit/mixbit.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/golden_file.hpp"

namespace golden {

struct algorithms_net {
  using backend = mixbit::reference::scalar;
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  struct layer {
    matrix weight;
    Eigen::RowVectorXf bias;
    mixbit::quantizer_slots<backend> slots;

    matrix forward(matrix const& x) const {
      return apply(slots, x, weight, [this](auto const& xq, auto const& wq) -> matrix {
        return (xq * wq.transpose()).rowwise() + bias;
      });
    }
  };
  layer fc1, fc2;
  std::vector<matrix> batches;

  explicit algorithms_net(mixbit::test::golden_file const& file) {
    for (auto [l, name] : {std::pair{&fc1, "fc1"}, std::pair{&fc2, "fc2"}}) {
      l->weight = matrix_of(file, std::string{name} + ".weight");
      l->bias = matrix_of(file, std::string{name} + ".bias");
    }
    for (int i = 0; i < 4; ++i) batches.push_back(matrix_of(file, "batch" + std::to_string(i)));
  }
  algorithms_net(algorithms_net const&) = delete;
  algorithms_net& operator=(algorithms_net const&) = delete;

  /// Rows of the last axis, all others together.
  static matrix matrix_of(mixbit::test::golden_file const& file, std::string const& name) {
    auto const values = file.floats(name);
    auto const shape = file.tensor(name);
    if (shape.rank == 0 || shape.size() == 0)
      mixbit::fail(mixbit::error_id::file_content, file.tensors().label(), ": tensor '", name, "' is empty");
    std::int64_t const columns = shape.shape[shape.rank - 1];
    return Eigen::Map<matrix const>(values.data(), static_cast<std::int64_t>(values.size()) / columns, columns);
  }
  static matrix gelu(matrix x) {
    for (float& v : x.reshaped()) v = 0.5f * v * (1.0f + std::erf(v * 0.70710678f));
    return x;
  }
  matrix forward(matrix const& x) const { return fc2.forward(gelu(fc1.forward(x))); }

  template <class Visit>
  void walk(Visit&& visit) {
    visit(mixbit::linear("fc1", fc1.slots, fc1.weight));
    visit(mixbit::linear("fc2", fc2.slots, fc2.weight));
  }
};

}  // namespace golden
