// eigen_linalg: the linalg of core/linalg.hpp on Eigen 3.4.
//
//   mixbit::thread_pool pool{2};  // core/thread_pool.hpp
//   mixbit::model_options<backend> options{.linalg = mixbit::eigen_linalg{pool}};
//
// Work is cut into tiles by shape, and Eigen computes each tile on one thread: the bits do not depend on the number of
// threads. They do depend on the instruction set that Eigen is compiled for, as does the speed: it has no dispatch of
// its own, so build for x86-64-v3 or native. In a program built with OpenMP, Eigen's own threads are off while a call
// runs (Eigen::setNbThreads is global), since its blocking would change with them.
//
// Eigen's products cost seconds of compile time. Where MIXBIT_SEPARATE_COMPILATION is defined this header only
// declares, and one file of the program includes mixbit/adapters/eigen_linalg_impl.hpp (as adapters/eigen_linalg.cpp
// does).
#pragma once

#include "mixbit/core/linalg.hpp"

namespace mixbit {

/// Models linalg. Copies share the executor, which must outlive them.
class eigen_linalg {
 public:
  eigen_linalg() = default;
  explicit eigen_linalg(executor_ref threads) : threads_{threads} {}

  void accumulate_gram(float alpha, matrix_ref<float const> x, matrix_ref<float> h) const;
  void multiply_add(float alpha, matrix_ref<float const> a, matrix_ref<float const> b, factor f,
                    matrix_ref<float> c) const;
  /// In float64; borrows 8 n² bytes.
  bool upper_factor(matrix_ref<float> h) const;
  /// By the eigenvectors of the shorter side's Gram matrix, on one thread; borrows 8 n² bytes a few times, n that side.
  low_rank_factors low_rank(matrix_ref<double const> a, std::int64_t rank) const;
  executor_ref threads() const { return threads_; }

 private:
  executor_ref threads_{};
};

static_assert(linalg<eigen_linalg>);

}  // namespace mixbit

#if !defined(MIXBIT_SEPARATE_COMPILATION)
#include "mixbit/adapters/eigen_linalg_impl.hpp"
#endif
