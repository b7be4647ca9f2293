// What eigen_linalg computes. With MIXBIT_SEPARATE_COMPILATION this header is what one source file of a program
// includes.
#pragma once

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <random>

#include "mixbit/adapters/eigen_linalg.hpp"

#if defined(MIXBIT_SEPARATE_COMPILATION)
#define MIXBIT_EIGEN_INLINE
#else
#define MIXBIT_EIGEN_INLINE inline
#endif

namespace mixbit {
namespace eigen_products {

template <class T>
using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline constexpr std::int64_t tile = 256, wide_tile = 1024;  // of results: what one thread computes at a time
inline constexpr std::int64_t panel = 128;                   // columns that a factorisation does not halve

template <class T>
auto map(matrix_ref<T> m) {
  using plain = std::conditional_t<std::is_const_v<T>, matrix<std::remove_const_t<T>> const, matrix<T>>;
  return Eigen::Map<plain, Eigen::Unaligned, Eigen::OuterStride<>>{m.data, m.rows, m.columns,
                                                                   Eigen::OuterStride<>{m.stride}};
}

/// Rows of doubles, within a matrix or whole.
using rows_ref = Eigen::Ref<matrix<double>, 0, Eigen::OuterStride<>>;
using const_rows_ref = Eigen::Ref<matrix<double> const, 0, Eigen::OuterStride<>>;

/// to += factor · a · bᵀ. The one product of doubles here: each further pair of storage orders is a second to compile.
inline void add_product(double factor, const_rows_ref const& a, const_rows_ref const& b, rows_ref to) {
  to.noalias() += factor * (a * b.transpose());
}

constexpr std::int64_t tiles_of(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

/// Eigen on one thread while it lives.
class single_threaded {
 public:
#if defined(_OPENMP)
  single_threaded() : before_{Eigen::nbThreads()} { Eigen::setNbThreads(1); }
  ~single_threaded() { Eigen::setNbThreads(before_); }
#else
  single_threaded() {}  // not trivial, so that it counts as used
  ~single_threaded() {}
#endif
  single_threaded(single_threaded const&) = delete;
  single_threaded& operator=(single_threaded const&) = delete;

 private:
  [[maybe_unused]] int before_ = 1;
};

/// g = L Lᵀ in place, of a panel's width: the lower triangle is read and written. False as lower_cholesky.
inline bool narrow_cholesky(rows_ref g) {
  for (Eigen::Index k = 0; k < g.rows(); ++k) {
    double const square = g(k, k) - g.row(k).head(k).squaredNorm();
    if (!(square > 0) || !std::isfinite(square)) return false;
    g(k, k) = std::sqrt(square);
    for (Eigen::Index i = k + 1; i < g.rows(); ++i)
      g(i, k) = (g(i, k) - g.row(i).head(k).dot(g.row(k).head(k))) / g(k, k);
  }
  return true;
}

/// rows ← rows · L⁻ᵀ, of which the lower triangle is read: by halves, so that most of it is products.
inline void solve_rows(const_rows_ref const& factor, rows_ref rows) {
  std::int64_t const n = factor.rows(), half = tiles_of(n, 2 * panel) * panel, rest = n - half;
  if (n <= panel) {
    factor.triangularView<Eigen::Lower>().transpose().solveInPlace<Eigen::OnTheRight>(rows);
    return;
  }
  solve_rows(factor.topLeftCorner(half, half), rows.leftCols(half));
  add_product(-1, rows.leftCols(half), factor.bottomLeftCorner(rest, half), rows.rightCols(rest));
  solve_rows(factor.bottomRightCorner(rest, rest), rows.rightCols(rest));
}

/// g = L Lᵀ in place, of which the lower triangle is read and written. What is above the diagonal is scratch. False
/// where g is not positive definite or not finite. By halves: products are then as long as they can be, and the second
/// half is read and written once for each of log2(n / panel) levels, where panel by panel it is n / panel times.
inline bool lower_cholesky(executor_ref threads, rows_ref g) {
  std::int64_t const n = g.rows(), half = tiles_of(n, 2 * panel) * panel, rest = n - half;
  if (n <= panel) return narrow_cholesky(g);
  if (!lower_cholesky(threads, g.topLeftCorner(half, half))) return false;
  std::int64_t const blocks = tiles_of(rest, tile);
  auto const rows_of = [&](std::int64_t b) { return std::min(tile, rest - b * tile); };
  auto const beside = [&](std::int64_t b) { return g.block(half + b * tile, 0, rows_of(b), half); };
  threads.parallel_for(blocks, [&](std::int64_t b) { solve_rows(g.topLeftCorner(half, half), beside(b)); });
  threads.parallel_for(blocks * (blocks + 1) / 2, [&](std::int64_t pair) {
    std::int64_t i = 0;
    while (pair > i) pair -= ++i;  // row i of the triangle has i + 1 tiles
    add_product(-1, beside(i), beside(pair),
                g.block(half + i * tile, half + pair * tile, rows_of(i), rows_of(pair)));
  });
  return lower_cholesky(threads, g.bottomRightCorner(rest, rest));
}

/// A symmetric tridiagonal matrix.
struct tridiagonal {
  Eigen::VectorXd diagonal, beside;

  /// Solves (T - shift) x = b by elimination with row exchanges; pivots are kept from falling below `least`.
  Eigen::VectorXd solve(double shift, double least, Eigen::VectorXd b) const {
    Eigen::Index const n = diagonal.size();
    Eigen::VectorXd d = diagonal.array() - shift, up = Eigen::VectorXd::Zero(n), upper = Eigen::VectorXd::Zero(n);
    up.head(n - 1) = beside;
    auto const pivot = [&](double p) { return std::abs(p) < least ? std::copysign(least, p) : p; };
    for (Eigen::Index i = 0; i + 1 < n; ++i) {
      double const below = beside[i], next = d[i + 1], after = up[i + 1];
      if (std::abs(d[i]) >= std::abs(below)) {
        double const m = below / pivot(d[i]);
        d[i + 1] -= m * up[i];
        b[i + 1] -= m * b[i];
      } else {
        double const m = d[i] / below;
        d[i] = below;
        d[i + 1] = up[i] - m * next;
        up[i] = next;
        upper[i] = after;
        up[i + 1] = -m * after;
        std::swap(b[i], b[i + 1]);
        b[i + 1] -= m * b[i];
      }
    }
    for (Eigen::Index i = n - 1; i >= 0; --i) {
      if (i + 1 < n) b[i] -= up[i] * b[i + 1];
      if (i + 2 < n) b[i] -= upper[i] * b[i + 2];
      b[i] /= pivot(d[i]);
    }
    return b;
  }

  /// Eigenvectors of the `count` largest eigenvalues, by inverse iteration; each is kept orthogonal to those before it,
  /// so equal eigenvalues get as many as there are.
  Eigen::MatrixXd largest(Eigen::Index count) const {
    Eigen::Index const n = diagonal.size();
    Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> values;
    values.computeFromTridiagonal(diagonal, beside, Eigen::EigenvaluesOnly);
    double const least = std::max(1e-16 * values.eigenvalues().cwiseAbs().maxCoeff(), 1e-300);
    Eigen::MatrixXd found(n, count);
    std::mt19937 random{1};
    for (Eigen::Index k = 0; k < count; ++k) {
      Eigen::VectorXd v(n);
      for (double& x : v) x = static_cast<double>(random()) / 4294967296.0 - 0.5;
      for (int step = 0; step < 4; ++step) {  // the last only orthogonalizes
        for (int again = 0; again < 2; ++again) v -= found.leftCols(k) * (found.leftCols(k).transpose() * v);
        v.normalize();
        if (step < 3) v = solve(values.eigenvalues()[n - 1 - k], least, std::move(v));
      }
      found.col(k) = v;
    }
    return found;
  }
};

/// Orthonormal columns that span what the `count` largest eigenvalues of g belong to. Householder's reduction, and no
/// more eigenvectors than are asked for: a fifth of the time of a whole decomposition.
inline Eigen::MatrixXd leading_eigenvectors(Eigen::MatrixXd const& g, Eigen::Index count) {
  Eigen::Index const n = g.rows();
  if (n == 1) return Eigen::MatrixXd::Ones(1, 1);
  Eigen::Tridiagonalization<Eigen::MatrixXd> const reduced{g};
  tridiagonal const t{reduced.diagonal(), reduced.subDiagonal()};
  Eigen::MatrixXd found = t.largest(count);
  Eigen::VectorXd const scales = reduced.householderCoefficients();
  for (Eigen::Index k = n - 2; k >= 0; --k) {  // the reflections, whose vectors lie below the subdiagonal
    Eigen::VectorXd v = reduced.packedMatrix().col(k).tail(n - k - 1);
    v[0] = 1;
    auto rows = found.bottomRows(n - k - 1);
    Eigen::VectorXd const along = scales[k] * (rows.transpose() * v);
    rows.noalias() -= v * along.transpose();
  }
  return found;
}

}  // namespace eigen_products

MIXBIT_EIGEN_INLINE void eigen_linalg::accumulate_gram(float alpha, matrix_ref<float const> x,
                                                       matrix_ref<float> h) const {
  using namespace eigen_products;
  single_threaded const guard;
  auto const all = map(x);
  auto sum = map(h);
  std::int64_t const n = x.columns, blocks = tiles_of(n, tile);
  auto const size = [&](std::int64_t b) { return std::min(tile, n - b * tile); };
  threads_.parallel_for(blocks * (blocks + 1) / 2, [&](std::int64_t i) {
    std::int64_t k = 0;
    while (i > k) i -= ++k;
    auto const left = all.middleCols(i * tile, size(i)), right = all.middleCols(k * tile, size(k));
    matrix<float> product = matrix<float>::Zero(size(i), size(k));
    product.noalias() += alpha * (left.transpose() * right);
    auto to = sum.block(i * tile, k * tile, size(i), size(k));
    if (i != k)
      to += product;
    else
      to.template triangularView<Eigen::Upper>() += product;
  });
}

MIXBIT_EIGEN_INLINE void eigen_linalg::multiply_add(float alpha, matrix_ref<float const> a, matrix_ref<float const> b,
                                                    factor f, matrix_ref<float> c) const {
  using namespace eigen_products;
  single_threaded const guard;
  auto const left = map(a), right = map(b);
  auto sum = map(c);
  std::int64_t const across = tiles_of(c.columns, wide_tile);
  threads_.parallel_for(tiles_of(c.rows, tile) * across, [&](std::int64_t t) {
    std::int64_t const i = t / across * tile, k = t % across * wide_tile;
    std::int64_t const rows = std::min(tile, c.rows - i), columns = std::min(wide_tile, c.columns - k);
    auto to = sum.block(i, k, rows, columns);
    if (f == factor::as_is)
      to.noalias() += alpha * (left.middleRows(i, rows) * right.middleCols(k, columns));
    else
      to.noalias() += alpha * (left.middleRows(i, rows) * right.middleRows(k, columns).transpose());
  });
}

// With J the reversal of indices, J h J = L Lᵀ gives h = (J L J)(J L J)ᵀ, where J L J is upper triangular.
MIXBIT_EIGEN_INLINE bool eigen_linalg::upper_factor(matrix_ref<float> h) const {
  using namespace eigen_products;
  single_threaded const guard;
  std::int64_t const n = h.rows, last = n - 1;
  matrix<double> g(n, n);
  threads_.parallel_for(n, [&](std::int64_t i) {
    for (std::int64_t k = 0; k <= i; ++k) g(i, k) = h(last - i, last - k);  // k <= i: the upper triangle of h
  });
  if (!lower_cholesky(threads_, g)) return false;
  threads_.parallel_for(n, [&](std::int64_t i) {
    for (std::int64_t k = 0; k < n; ++k) h(last - i, last - k) = k <= i ? static_cast<float>(g(i, k)) : 0.0f;
  });
  return true;
}

// Singular vectors of the shorter side are eigenvectors of its Gram matrix; a · V Vᵀ, or U Uᵀ · a, is the best
// approximation, and errs by the square of what V or U does.
MIXBIT_EIGEN_INLINE low_rank_factors eigen_linalg::low_rank(matrix_ref<double const> a, std::int64_t rank) const {
  using namespace eigen_products;
  single_threaded const guard;
  auto const whole = map(a);
  matrix<double> const turned = whole.transpose();
  low_rank_factors found;
  found.left.resize(static_cast<std::size_t>(a.rows * rank));
  found.right.resize(static_cast<std::size_t>(rank * a.columns));
  auto left = map(dense_matrix(found.left.data(), a.rows, rank));
  auto right = map(dense_matrix(found.right.data(), rank, a.columns));
  auto const leading = [rank](const_rows_ref const& rows) {
    matrix<double> gram = matrix<double>::Zero(rows.rows(), rows.rows());
    add_product(1, rows, rows, gram);
    return leading_eigenvectors(gram, rank);
  };
  if (a.columns <= a.rows) {
    right = leading(turned).transpose();
    add_product(1, whole, right, left);
    return found;
  }
  left = leading(whole);
  matrix<double> const across = left.transpose();
  add_product(1, across, turned, right);
  for (std::int64_t r = 0; r < rank; ++r) {
    double const value = right.row(r).norm();
    if (value > 0) right.row(r) /= value;
    left.col(r) *= value;
  }
  return found;
}

}  // namespace mixbit

#undef MIXBIT_EIGEN_INLINE
