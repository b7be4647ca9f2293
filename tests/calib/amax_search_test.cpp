#include "mixbit/calib/amax_search.hpp"

#include <doctest/doctest.h>

#include "mixbit/calib/local_hessian.hpp"
#include "mixbit/core/thread_pool.hpp"
#include "mixbit/formats/rules.hpp"
#include "support/small_network.hpp"

using namespace mixbit;
using test::matrix;
using cpu = test::cpu_backend;

namespace {

std::int64_t group_of(partition const& p, std::int64_t row, std::int64_t column) {
  return row / p.block[0] * p.groups[1] + column / p.block[1];
}

std::vector<float> amaxes(matrix const& w, partition const& p) {
  std::vector<float> amax(static_cast<std::size_t>(p.group_count()), 0.0f);
  for (std::int64_t i = 0; i < w.rows(); ++i)
    for (std::int64_t k = 0; k < w.cols(); ++k) {
      float& top = amax[static_cast<std::size_t>(group_of(p, i, k))];
      top = std::max(top, std::abs(w(i, k)));
    }
  return amax;
}

float cast(format const& how, float tensor_amax, float amax, float x) {
  return formats::visit_rule(how, {dtype::f32, tensor_amax, false},
                             [&](auto const& rule) { return rule.fake_quantize(rule.prepare(amax), x); });
}

/// By the definition: for every group every candidate over all of its elements. `error_of(row, column of the block)`
/// is given the differences of one row.
template <class Error>
std::vector<float> brute_force(matrix const& w, partition const& p, format const& how, amax_candidates const& c,
                               Error&& error_of) {
  auto const amax = amaxes(w, p);
  float const whole = w.cwiseAbs().maxCoeff();
  std::vector<float> found;
  for (std::int64_t g = 0; g < p.group_count(); ++g) {
    double least = INFINITY;
    float best = 0;
    for (float const v : c.values) {
      float const tried = c.multiply ? amax[static_cast<std::size_t>(g)] * v : v;
      double error = 0;
      for (std::int64_t i = 0; i < w.rows(); ++i) {
        Eigen::VectorXd d = Eigen::VectorXd::Zero(w.cols());
        for (std::int64_t k = 0; k < w.cols(); ++k)
          if (group_of(p, i, k) == g) d[k] = double{w(i, k)} - cast(how, whole, tried, w(i, k));
        error += error_of(d);
      }
      if (error < least) least = error, best = tried;
    }
    found.push_back(best);
  }
  return found;
}

double squares(Eigen::VectorXd const& d) { return d.squaredNorm(); }

geometry shape_of(matrix const& w) { return dense_geometry(dtype::f32, {w.rows(), w.cols()}); }

std::vector<float> searched(matrix const& w, partition const& p, format const& how, amax_candidates const& c) {
  workspace<cpu> ws;
  amax_search<cpu> search{ws, read_view(w), p, how, amaxes(w, p), w.cwiseAbs().maxCoeff()};
  squared_error<cpu> error{ws};
  return search.best(c, error);
}

format int_format(int bits) { return {integer_element(bits), policy::modelopt}; }

}  // namespace

TEST_CASE("amax_multipliers: 39 points from a quarter to four times") {
  auto const c = amax_multipliers(0.25, 4.0, 0.1);
  CHECK(c.multiply);
  REQUIRE(c.values.size() == 39);
  CHECK(c.values.front() == 0.25f);
  CHECK(c.values.back() == 4.0f);
  CHECK(c.values[8] == doctest::Approx(0.25 + 8 * 3.75 / 38));
  CHECK(std::is_sorted(c.values.begin(), c.values.end()));
  CHECK(amax_multipliers(0.5, 1.5, 0.05).values.size() == 21);
  CHECK(amax_multipliers(1, 1, 0.1).values == std::vector<float>{1.0f});
}

TEST_CASE("nvfp4_scale_amaxes: one for each positive finite E4M3 scale") {
  auto const c = nvfp4_scale_amaxes(3.0f);
  CHECK_FALSE(c.multiply);
  REQUIRE(c.values.size() == 126);
  CHECK(c.values.front() == doctest::Approx(3.0 * 0x1p-9 / 448));
  CHECK(c.values.back() == 3.0f);
}

TEST_CASE("amax_search: equal to trying every candidate on every group") {
  matrix const w = test::random_matrix(12, 40, 3);
  auto const c = amax_multipliers(0.25, 4.0, 0.1);
  auto const g = shape_of(w);
  std::vector<axis_block> const last{{-1, 16}}, both{{0, 4}, {1, 8}};
  std::vector<int> const rows{0}, columns{1};
  for (int bits : {3, 4, 8})
    for (partition const& p : {per_tensor(g), per_axes(g, rows), per_axes(g, columns), blocks_of(g, last),
                               blocks_of(g, both)}) {
      CAPTURE(bits);
      CAPTURE(p.group_count());
      CHECK(searched(w, p, int_format(bits), c) == brute_force(w, p, int_format(bits), c, squares));
    }
}

TEST_CASE("amax_search: short blocks of any width, ragged ones too") {
  matrix const w = test::random_matrix(9, 33, 11);
  auto const c = amax_multipliers(0.25, 4.0, 0.1);
  for (std::int64_t const width : {1, 3, 5, 7, 16}) {
    std::vector<axis_block> const last{{-1, width}};
    auto const p = blocks_of(shape_of(w), last);
    CHECK(searched(w, p, int_format(3), c) == brute_force(w, p, int_format(3), c, squares));
  }
}

TEST_CASE("amax_search: groups that cross slabs of rows") {
  matrix w = test::random_matrix(700, 130, 4);  // more than one slab of 65536 elements
  w.topRows(520) *= 0.1f;                        // so that the first alone would choose otherwise
  auto const g = shape_of(w);
  auto const c = amax_multipliers(0.25, 2.0, 0.25);
  std::vector<axis_block> const tall{{0, 3}, {1, 65}};
  for (partition const& p : {per_tensor(g), blocks_of(g, tall)})
    CHECK(searched(w, p, int_format(4), c) == brute_force(w, p, int_format(4), c, squares));
}

TEST_CASE("amax_search: of equal errors the first candidate") {
  matrix w = matrix::Zero(2, 16);
  w(1, 3) = 1;
  std::vector<axis_block> const last{{-1, 16}};
  workspace<cpu> ws;
  amax_search<cpu> search{ws, read_view(w), blocks_of(shape_of(w), last), int_format(4), {8.0f, 1.0f}, 1.0f};
  squared_error<cpu> error{ws};
  auto const found = search.best(amax_candidates{{0.5f, 1.0f, 2.0f}}, error);
  CHECK(found[0] == 4.0f);  // of zeros nothing errs
  CHECK(found[1] == 1.0f);
}

TEST_CASE("amax_search: the E4M3 scales of static NVFP4, relative to the same tensor amax") {
  matrix w = test::random_matrix(6, 48, 5);
  w.row(2) *= 0.01f;
  std::vector<axis_block> const last{{-1, 16}};
  auto const p = blocks_of(shape_of(w), last);
  auto const c = nvfp4_scale_amaxes(w.cwiseAbs().maxCoeff());
  for (policy const rules : {policy::stored, policy::modelopt}) {
    format const how{e2m1_element, rules, dtype::f8_e4m3, packing::dense_rows, scale_rule::two_level};
    CHECK(searched(w, p, how, c) == brute_force(w, p, how, c, squares));
  }
}

TEST_CASE("amax_search: a weight of another type and stride is searched as float32") {
  matrix const w = test::random_matrix(8, 32, 6);
  std::vector<axis_block> const last{{-1, 16}};
  auto const c = amax_multipliers(0.25, 4.0, 0.1);
  std::vector<bfloat16> narrow(8 * 32);
  matrix rounded(8, 32);
  for (Eigen::Index i = 0; i < 8; ++i)
    for (Eigen::Index k = 0; k < 32; ++k) {  // column by column
      narrow[static_cast<std::size_t>(k * 8 + i)] = from_float<bfloat16>(w(i, k));
      rounded(i, k) = to_float(narrow[static_cast<std::size_t>(k * 8 + i)]);
    }
  std::array<std::int8_t, 2> const turned{1, 0};
  const_tensor_ref const shown = permuted(const_tensor_ref{dense_view(narrow.data(), {32, 8})}, turned);
  auto const p = blocks_of(shown, last);
  workspace<cpu> ws;
  amax_search<cpu> search{ws, shown, p, int_format(4), amaxes(rounded, p), 1.0f};
  squared_error<cpu> error{ws};
  CHECK(search.best(c, error) == brute_force(rounded, p, int_format(4), c, squares));
}

TEST_CASE("local_hessian_error: equal to the definition, whatever blocks and groups") {
  matrix const w = test::random_matrix(10, 32, 7), x = test::random_matrix(50, 32, 8) *
                                                       Eigen::VectorXf::LinSpaced(32, 0.1f, 3).asDiagonal();
  auto const g = shape_of(w);
  auto const c = amax_multipliers(0.25, 4.0, 0.1);
  std::vector<axis_block> const of16{{-1, 16}}, of32{{-1, 32}};
  std::vector<int> const rows{0};
  thread_pool pool{2};
  for (std::int64_t block : {8, 16}) {
    block_grams h{32, block};
    h.add({}, dense_matrix(x.data(), 20, 32));
    h.add(pool, dense_matrix(x.data() + 20 * 32, 30, 32));
    h.finish();
    CHECK(h.tokens() == 50);
    Eigen::MatrixXd const gram = x.cast<double>().transpose() * x.cast<double>() / 50;
    auto const error_of = [&](Eigen::VectorXd const& d) {
      double error = 0;
      for (std::int64_t at = 0; at < 32; at += block)
        error += d.segment(at, block).dot(gram.block(at, at, block, block) * d.segment(at, block));
      return error;
    };
    for (partition const& p : {per_tensor(g), per_axes(g, rows), blocks_of(g, of16), blocks_of(g, of32)})
      for (int threads : {1, 2}) {
        CAPTURE(block);
        CAPTURE(p.group_count());
        workspace<cpu> ws;
        amax_search<cpu> search{ws, read_view(w), p, int_format(4), amaxes(w, p), 1.0f};
        local_hessian_error<cpu> error{ws.device, h, threads == 1 ? executor_ref{} : executor_ref{pool}};
        auto const found = search.best(c, error);
        CHECK(found == brute_force(w, p, int_format(4), c, error_of));
        CHECK(found != searched(w, p, int_format(4), c));  // inputs differ in size, so the errors do
      }
  }
}

TEST_CASE("local_hessian_error: a block over several groups gives each its error for its channels") {
  matrix const w = test::random_matrix(3, 16, 9), x = test::random_matrix(40, 16, 10);
  block_grams h{16, 16};
  h.add({}, dense_matrix(x.data(), 40, 16));
  h.finish();
  std::vector<axis_block> const of6{{-1, 6}};
  cast_slab s;
  matrix const q = 0.5f * w;
  s.weight = read_view(w);
  s.cast = read_view(q);
  s.groups = blocks_of(shape_of(w), of6);
  std::vector<double> sum(9, 1.0);
  cpu device;
  local_hessian_error<cpu> error{device, h, {}};
  error(s, sum.data());
  for (Eigen::Index i = 0; i < 3; ++i) {
    Eigen::VectorXd const d = 0.5 * w.row(i).transpose().cast<double>();
    double const whole = d.dot(x.cast<double>().transpose() * (x.cast<double>() * d)) / 40;
    double const share[] = {6 * whole, 6 * whole, 4 * whole};
    for (Eigen::Index k = 0; k < 3; ++k)
      CHECK(sum[static_cast<std::size_t>(i * 3 + k)] == doctest::Approx(1 + share[k]).epsilon(1e-5));
  }
}
