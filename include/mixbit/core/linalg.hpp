// Dense linear algebra for the algorithms that need more than a backend's kernels: GPTQ and SVDQuant.
//
// It computes in host memory, in row-major matrices with a row stride. A backend whose memory is elsewhere takes part
// by copies: such an algorithm fetches one layer's inputs and weight at a time, and puts the result back. The library
// ships one implementation, on Eigen (adapters/eigen_linalg.hpp); a host plugs its own BLAS in by modelling `linalg`.
//
// There is no built-in default on purpose: plain loops would be slower by orders of magnitude, and silently so. An
// algorithm that needs linalg and has none says what to set (`require_linalg`).
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "mixbit/core/error.hpp"
#include "mixbit/core/executor.hpp"

namespace mixbit {

/// A borrowed matrix in host memory: element (i, k) lies at data[i * stride + k].
template <class T>
struct matrix_ref {
  T* data = nullptr;
  std::int64_t rows = 0, columns = 0;
  std::int64_t stride = 0;  ///< of rows, in elements; at least `columns`

  T* row(std::int64_t i) const { return data + i * stride; }
  T& operator()(std::int64_t i, std::int64_t k) const { return data[i * stride + k]; }
  matrix_ref block(std::int64_t first_row, std::int64_t first_column, std::int64_t n, std::int64_t m) const {
    return {data + first_row * stride + first_column, n, m, stride};
  }
  operator matrix_ref<T const>() const { return {data, rows, columns, stride}; }  // NOLINT: it may always be read
};

/// Dense rows, one behind the other.
template <class T>
matrix_ref<T> dense_matrix(T* data, std::int64_t rows, std::int64_t columns) {
  return {data, rows, columns, columns};
}

/// How multiply_add reads its second factor.
enum class factor : std::uint8_t { as_is, transposed };

/// The best approximation of a matrix by one of a lower rank, left · right (Eckart and Young, 1936): with the singular
/// value decomposition U S Vᵀ, left is U S and right Vᵀ, each cut to the rank. Dense; signs are free.
struct low_rank_factors {
  std::vector<double> left;   ///< [rows, rank]
  std::vector<double> right;  ///< [rank, columns]
};

/// Contract, for all: results do not depend on the number of threads; matrices of one call share no element, though
/// they may be blocks of one; the caller has checked shapes. An object is used by one thread at a time.
///   accumulate_gram  upper triangle of h, diagonal included, += alpha · xᵀ x; what is below it is left alone
///   multiply_add     c += alpha · a · b, or alpha · a · bᵀ
///   upper_factor     replaces the symmetric h, of which the upper triangle is read, by the upper triangular R with a
///                    positive diagonal and R Rᵀ = h, zeros below it: Cholesky's factor, from the last column up.
///                    False, and h as before, where h is not positive definite or not finite. Computes in float64, or
///                    as accurately
///   low_rank         the best approximation of a by that rank, 1 <= rank <= min(rows, columns); in float64
///   threads          what callers run beside the products, on the same threads
template <class L>
concept linalg = requires(L& l, float alpha, matrix_ref<float const> x, matrix_ref<float> h, factor f,
                          matrix_ref<double const> a, std::int64_t rank) {
  { l.accumulate_gram(alpha, x, h) } -> std::same_as<void>;
  { l.multiply_add(alpha, x, x, f, h) } -> std::same_as<void>;
  { l.upper_factor(h) } -> std::same_as<bool>;
  { l.low_rank(a, rank) } -> std::same_as<low_rank_factors>;
  { l.threads() } -> std::convertible_to<executor_ref>;
};

/// Any linalg, or none: what a model holds, so that nothing else is a template on it. Copies share the implementation.
class any_linalg {
 public:
  any_linalg() = default;
  template <linalg L>
    requires(!std::same_as<std::remove_cvref_t<L>, any_linalg>)
  any_linalg(L implementation)  // NOLINT: any implementation will do
      : impl_{std::make_shared<held<L>>(std::move(implementation))} {}

  explicit operator bool() const { return impl_ != nullptr; }

  void accumulate_gram(float alpha, matrix_ref<float const> x, matrix_ref<float> h) const {
    impl_->accumulate_gram(alpha, x, h);
  }
  void multiply_add(float alpha, matrix_ref<float const> a, matrix_ref<float const> b, factor f,
                    matrix_ref<float> c) const {
    impl_->multiply_add(alpha, a, b, f, c);
  }
  bool upper_factor(matrix_ref<float> h) const { return impl_->upper_factor(h); }
  low_rank_factors low_rank(matrix_ref<double const> a, std::int64_t rank) const { return impl_->low_rank(a, rank); }
  executor_ref threads() const { return impl_->threads(); }

 private:
  struct interface {
    virtual ~interface() = default;
    virtual void accumulate_gram(float, matrix_ref<float const>, matrix_ref<float>) = 0;
    virtual void multiply_add(float, matrix_ref<float const>, matrix_ref<float const>, factor, matrix_ref<float>) = 0;
    virtual bool upper_factor(matrix_ref<float>) = 0;
    virtual low_rank_factors low_rank(matrix_ref<double const>, std::int64_t) = 0;
    virtual executor_ref threads() = 0;
  };
  template <class L>
  struct held final : interface {
    explicit held(L l) : implementation{std::move(l)} {}
    void accumulate_gram(float alpha, matrix_ref<float const> x, matrix_ref<float> h) override {
      implementation.accumulate_gram(alpha, x, h);
    }
    void multiply_add(float alpha, matrix_ref<float const> a, matrix_ref<float const> b, factor f,
                      matrix_ref<float> c) override {
      implementation.multiply_add(alpha, a, b, f, c);
    }
    bool upper_factor(matrix_ref<float> h) override { return implementation.upper_factor(h); }
    low_rank_factors low_rank(matrix_ref<double const> a, std::int64_t rank) override {
      return implementation.low_rank(a, rank);
    }
    executor_ref threads() override { return implementation.threads(); }
    L implementation;
  };
  std::shared_ptr<interface> impl_;
};

/// Throws `state_missing` saying what to set where a model was given none.
inline void require_linalg(any_linalg const& l, std::string_view algorithm) {
  if (!l)
    fail(error_id::state_missing, "algorithm '", algorithm, "' computes with dense linear algebra, and this model has ",
         "none: set model_options::linalg, for example to eigen_linalg of mixbit/adapters/eigen_linalg.hpp");
}

}  // namespace mixbit
