// Host 3: an inference engine without gradients. Max calibration works as everywhere; which layers are sensitive is
// found by turning quantizers on one layer at a time and looking at the output.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/reference/scalar.hpp"

namespace {

using namespace mixbit;
using cpu = reference::scalar;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

matrix waves(Eigen::Index rows, Eigen::Index columns, float step) {
  matrix m(rows, columns);
  for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = std::sin(step * static_cast<float>(i + 1));
  return m;
}

/// A forward pass, and nothing else.
struct engine {
  struct layer {
    std::string name;
    matrix weight;
    quantizer_slots<cpu> slots = {};
  };
  std::vector<layer> layers;

  engine() {
    layers.push_back({"encoder", waves(16, 8, 0.7f)});
    layers.push_back({"middle", waves(16, 16, 0.9f)});
    layers.push_back({"decoder", waves(8, 16, 1.1f)});
    layers[1].weight(3, 5) = 60.0f;  // one outlier takes the range of all others
  }
  matrix forward(matrix x) const {
    for (auto const& l : layers)
      x = apply(l.slots, x, l.weight, [](auto const& a, auto const& b) -> matrix {
        return (a * b.transpose()).cwiseMax(-4.0f).cwiseMin(4.0f);
      });
    return x;
  }
  template <class Visit>
  void walk(Visit&& visit) {
    for (auto& l : layers) visit(linear(l.name, l.slots, l.weight));
  }
};

matrix const batch = waves(9, 8, 0.3f);

/// All weights and inputs in INT8 with one scale a tensor.
quantize_config int8_tensor() {
  quantize_config config;
  config.entries.push_back({"*", std::nullopt, std::nullopt, false});
  config.entries.push_back({"*weight_quantizer", std::nullopt, std::vector{quantizer_attribute_config{}}, true});
  config.entries.push_back({"*input_quantizer", std::nullopt, std::vector{quantizer_attribute_config{}}, true});
  return config;
}

void turn(model<cpu>& m, std::string const& layer, bool on) {
  for (char const* which : {".weight_quantizer", ".input_quantizer"})
    on ? enable_quantizer(m, layer + which) : disable_quantizer(m, layer + which);
}

}  // namespace

TEST_CASE("forward only: calibration, and sensitivities layer by layer, without a gradient") {
  engine e;
  matrix const exact = e.forward(batch);
  model<cpu> m{e};
  quantize(m, int8_tensor(), [&] { e.forward(batch); });
  float const all = (e.forward(batch) - exact).norm();
  REQUIRE(all > 0);

  disable_quantizer(m, "*");
  CHECK(e.forward(batch) == exact);
  std::vector<std::pair<float, std::string>> sensitivity;
  for (auto const& module : m.modules()) {
    turn(m, module.name, true);
    sensitivity.emplace_back((e.forward(batch) - exact).norm(), module.name);
    turn(m, module.name, false);
  }
  std::sort(sensitivity.rbegin(), sensitivity.rend());
  CHECK(sensitivity[0].second == "middle");
  CHECK(sensitivity[0].first > 2 * sensitivity[1].first);
  CHECK(sensitivity[2].first > 0);

  // all but the most sensitive one
  for (std::size_t i = 1; i < sensitivity.size(); ++i) turn(m, sensitivity[i].second, true);
  CHECK((e.forward(batch) - exact).norm() < 0.5f * all);
}
