// Host 2: a graph runtime whose nodes cannot be changed. Slots live in a map beside the graph, found by node id; the
// interpreter is the only place that calls mixbit.
#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <unordered_map>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/reference/scalar.hpp"

namespace graph {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

enum class kind { linear, relu, add };

/// Somebody else's node.
struct node {
  int id;
  kind what;
  std::vector<int> inputs;  // node ids; -1 is the graph's input
  matrix weight;
};
using nodes = std::vector<node>;

}  // namespace graph

namespace {

using namespace mixbit;
using graph::matrix;
using cpu = reference::scalar;

class interpreter {
 public:
  explicit interpreter(graph::nodes& nodes) : nodes_{nodes} {
    for (auto const& n : nodes)
      if (n.what == graph::kind::linear) slots_[n.id];
  }

  matrix run(matrix const& input) {
    std::unordered_map<int, matrix> values{{-1, input}};
    for (auto const& n : nodes_) {
      matrix const& x = values.at(n.inputs[0]);
      switch (n.what) {
        case graph::kind::linear: values[n.id] = multiply(n, x); break;
        case graph::kind::relu: values[n.id] = x.cwiseMax(0.0f); break;
        case graph::kind::add: values[n.id] = x + values.at(n.inputs[1]); break;
      }
    }
    return values.at(nodes_.back().id);
  }

  template <class Visit>
  void walk(Visit&& visit) {
    for (auto& n : nodes_)
      if (n.what == graph::kind::linear) visit(linear("node" + std::to_string(n.id), slots_.at(n.id), n.weight));
  }
  std::size_t nodes_with_slots() const { return slots_.size(); }

 private:
  matrix multiply(graph::node const& n, matrix const& x) {
    return apply(slots_.at(n.id), x, n.weight,
                 [](auto const& a, auto const& b) -> matrix { return a * b.transpose(); });
  }

  graph::nodes& nodes_;
  std::unordered_map<int, quantizer_slots<cpu>> slots_;
};

matrix wave_matrix(Eigen::Index rows, Eigen::Index columns, float step) {
  matrix m(rows, columns);
  for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = std::sin(step * static_cast<float>(i + 1));
  return m;
}

/// y = w20 relu(w10 x) + w30 x
graph::nodes residual_block() {
  using graph::kind;
  return {{10, kind::linear, {-1}, wave_matrix(12, 8, 0.7f)}, {11, kind::relu, {10}, {}},
          {20, kind::linear, {11}, wave_matrix(6, 12, 0.9f)}, {30, kind::linear, {-1}, wave_matrix(6, 8, 1.1f)},
          {40, kind::add, {20, 30}, {}}};
}

matrix const batch = wave_matrix(5, 8, 0.3f);

}  // namespace

TEST_CASE("graph runtime: quantized beside its nodes, which stay as they are") {
  auto nodes = residual_block();
  interpreter g{nodes};
  matrix const plain = g.run(batch);
  model<cpu> m{g};
  quantize(m, preset("INT8_DEFAULT_CFG"), [&] { g.run(batch); });
  CHECK(g.nodes_with_slots() == 3);
  matrix const quantized = g.run(batch);
  CHECK(quantized != plain);
  CHECK(quantized.isApprox(plain, 0.05f));
  auto const untouched = residual_block();
  for (std::size_t i = 0; i < nodes.size(); ++i) CHECK(nodes[i].weight == untouched[i].weight);
  disable_quantizer(m, "node10.*");
  matrix const rest = g.run(batch);
  CHECK(rest != quantized);
  CHECK(rest != plain);
  disable_quantizer(m, "node[23]0.*");
  CHECK(g.run(batch) == plain);
}

TEST_CASE("graph runtime: a rehash moves the slots, the calibration stays") {
  std::unordered_map<int, quantizer_slots<cpu>> slots;
  matrix weight = wave_matrix(6, 8, 0.7f);
  struct host {
    std::unordered_map<int, quantizer_slots<cpu>>& slots;
    matrix& weight;
    void walk(module_visitor<cpu> const& visit) { visit(linear("0", slots.at(0), weight)); }
  } h{slots, weight};
  slots[0];
  auto const run = [&] {
    return apply(slots.at(0), batch, weight, [](auto const& a, auto const& b) -> matrix { return a * b.transpose(); });
  };
  model<cpu> m{h};
  quantize(m, preset("INT8_DEFAULT_CFG"), run);
  matrix const before = run();
  auto moved = std::unordered_map<int, quantizer_slots<cpu>>{};
  moved[0] = std::move(slots.at(0));
  CHECK_FALSE(slots.at(0).live());  // moved from: off, and the op still runs
  CHECK(run() == batch * weight.transpose());
  slots = std::move(moved);
  for (int i = 1; i < 1000; ++i) slots[i];
  CHECK(run() == before);
}
