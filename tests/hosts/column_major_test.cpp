// Host 1 in other layouts: Eigen's default column-major matrices as [features, tokens], and xtensor. The same model
// gives the same numbers in each, up to the order of float sums.
#include <doctest/doctest.h>

#include "mixbit/adapters/eigen.hpp"
#include "mixbit/adapters/xtensor.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/reference/scalar.hpp"

namespace {

using namespace mixbit;
using cpu = reference::scalar;
using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int tokens = 7, in = 40, out = 12;

float weight_at(int o, int i) { return std::sin(0.7f * static_cast<float>(o * in + i + 1)); }
float input_at(int t, int i) { return std::cos(0.3f * static_cast<float>(t * in + i + 1)); }

/// x [tokens, in], w [out, in]
struct row_host {
  row_major w{out, in}, x{tokens, in};
  quantizer_slots<cpu> slots;
  row_host() {
    for (int i = 0; i < in; ++i) {
      for (int o = 0; o < out; ++o) w(o, i) = weight_at(o, i);
      for (int t = 0; t < tokens; ++t) x(t, i) = input_at(t, i);
    }
  }
  row_major run() {
    return apply(slots, x, w, [](auto const& a, auto const& b) -> row_major { return a * b.transpose(); });
  }
  void walk(module_visitor<cpu> const& visit) { visit(linear("fc", slots, w)); }
};

/// x [in, tokens], w [out, in], y [out, tokens]: what most Eigen code writes
struct column_host {
  Eigen::MatrixXf w{out, in}, x{in, tokens};
  quantizer_slots<cpu> slots;
  explicit column_host(row_host const& from) : w{from.w}, x{from.x.transpose()} {}
  Eigen::MatrixXf run() {
    return apply(slots, x, w, [](auto const& a, auto const& b) -> Eigen::MatrixXf { return b * a; });
  }
  void walk(module_visitor<cpu> const& visit) { visit(linear("fc", slots, w, layouts::features_tokens)); }
};

template <class Tensor>
struct xtensor_host {
  Tensor w = Tensor::from_shape({out, in}), x = Tensor::from_shape({tokens, in});
  quantizer_slots<cpu> slots;
  xtensor_host() {
    for (int i = 0; i < in; ++i) {
      for (int o = 0; o < out; ++o) w(o, i) = weight_at(o, i);
      for (int t = 0; t < tokens; ++t) x(t, i) = input_at(t, i);
    }
  }
  Tensor run() {
    return apply(slots, x, w, [](auto const& a, auto const& b) {
      Tensor y = Tensor::from_shape({tokens, out});
      for (int t = 0; t < tokens; ++t)
        for (int o = 0; o < out; ++o) {
          y(t, o) = 0;
          for (int i = 0; i < in; ++i) y(t, o) += a(t, i) * b(o, i);
        }
      return y;
    });
  }
  void walk(module_visitor<cpu> const& visit) { visit(linear("fc", slots, w)); }
};

template <class Host>
std::vector<float> amax(Host& h, quantizer_role role) {
  cpu device;
  auto* const q = h.slots.shared_site()->quantizers().find(role);
  return q ? q->members().front().amax(device) : std::vector<float>{};
}

template <class Host>
void calibrated(Host& h, quantize_config const& config) {
  model<cpu> m{h};
  quantize(m, config, [&] { h.run(); });
}

}  // namespace

TEST_CASE("layouts: column-major [features, tokens] and xtensor are quantized as row-major [tokens, features] is") {
  for (char const* name : {"INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG",
                           "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", "FP8_PER_CHANNEL_PER_TOKEN_CFG"}) {
    CAPTURE(name);
    row_host rows;
    column_host columns{rows};
    xtensor_host<xt::xtensor<float, 2>> xtensors;
    xtensor_host<xt::xarray<float>> xarrays;
    xtensor_host<xt::xtensor<float, 2, xt::layout_type::column_major>> reversed;
    row_major const plain = rows.run();
    auto config = preset(name);
    for (auto& e : config.entries)  // blocks that fit 40 inputs, with a ragged tail
      for (std::size_t i = 0; e.cfg && i < e.cfg->size(); ++i)
        if ((*e.cfg)[i].block_sizes)
          for (auto& b : (*e.cfg)[i].block_sizes->axes)
            if (b.size) b.size = 16;
    calibrated(rows, config);
    calibrated(columns, config);
    calibrated(xtensors, config);
    calibrated(xarrays, config);
    calibrated(reversed, config);
    for (auto const role : {quantizer_role::input, quantizer_role::weight}) {
      auto const expected = amax(rows, role);
      CHECK(amax(columns, role) == expected);
      CHECK(amax(xtensors, role) == expected);
      CHECK(amax(xarrays, role) == expected);
      CHECK(amax(reversed, role) == expected);
    }
    row_major const y = rows.run();
    CHECK(y != plain);
    CHECK(columns.run().transpose().isApprox(y, 1e-5f));
    auto const yx = xtensors.run();
    auto const yr = reversed.run();
    auto const ya = xarrays.run();
    for (int t = 0; t < tokens; ++t)
      for (int o = 0; o < out; ++o) {
        REQUIRE(yx(t, o) == doctest::Approx(y(t, o)).epsilon(1e-4));
        REQUIRE(ya(t, o) == yx(t, o));
        REQUIRE(yr(t, o) == yx(t, o));
      }
  }
}

TEST_CASE("layouts: xtensor's stride 0 on axes of size 1 does not reach the library (rule 14)") {
  xt::xtensor<float, 3> x = xt::xtensor<float, 3>::from_shape({4, 1, 5});
  auto const view = read_view(x);
  CHECK(view.stride[0] == 5);
  CHECK(view.stride[2] == 1);
  CHECK(view.is_dense());
  auto const one = xt::xtensor<float, 2, xt::layout_type::column_major>::from_shape({1, 3});
  CHECK(read_view(one).stride[1] == 1);
}

TEST_CASE("layouts: fixed and half-fixed Eigen matrices are hosts as well") {
  Eigen::Matrix<float, 3, 4> w = Eigen::Matrix<float, 3, 4>::Random();
  Eigen::Matrix<float, Eigen::Dynamic, 1, 0, 9, 1> x = Eigen::Vector4f::Random();  // never on the heap
  struct host {
    Eigen::Matrix<float, 3, 4>& w;
    quantizer_slots<cpu> slots;
    void walk(module_visitor<cpu> const& visit) { visit(linear("fc", slots, w)); }
  } h{w, {}};
  auto const run = [&] {
    return apply(h.slots, x, w, [](auto const& a, auto const& b) -> Eigen::Vector3f { return b * a; });
  };
  Eigen::Vector3f const plain = run();
  CHECK(plain == w * x);
  model<cpu> m{h};
  quantize(m, preset("INT8_DEFAULT_CFG"), run);
  CHECK(run().isApprox(plain, 0.1f));
  CHECK(run() != plain);
}
