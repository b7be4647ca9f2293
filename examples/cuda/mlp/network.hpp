// Host 6: two layers in device memory. The host owns its memory and its stream and multiplies with cuBLAS; mixbit sees
// pointers and shapes, and no tensor is copied to the CPU in a forward, a backward or a score.
#pragma once

#include <memory>
#include <vector>

#include <cublas_v2.h>

#include "mixbit/cuda/gpu.hpp"
#include "mixbit/model/quantize.hpp"
#include "mixbit/quantizer/score.hpp"
#include "ops.hpp"

namespace mlp {

/// A row-major matrix in device memory that somebody else owns.
struct matrix {
  float* data = nullptr;
  std::int64_t rows = 0, columns = 0;
  std::int64_t size() const { return rows * columns; }
};

}  // namespace mlp

template <>
struct mixbit::tensor_traits<mlp::matrix> {
  static const_tensor_ref view(mlp::matrix const& m) {
    auto t = dense_view(const_cast<float const*>(m.data), {m.rows, m.columns});
    t.where = device::cuda;
    return t;
  }
  static tensor_ref view(mlp::matrix& m) {
    auto t = dense_view(m.data, {m.rows, m.columns});
    t.where = device::cuda;
    return t;
  }
  static mlp::matrix wrap(const_tensor_ref t) { return {const_cast<float*>(t.as<float>()), t.shape[0], t.shape[1]}; }
  static mlp::matrix wrap(tensor_ref t) { return {t.as<float>(), t.shape[0], t.shape[1]}; }
};

namespace mlp {

using mixbit::cuda::gpu;
using slots = mixbit::quantizer_slots<gpu>;

/// Products of row-major matrices on a stream. Full float32: TF32 would be a rounding of its own.
class blas {
 public:
  explicit blas(cudaStream_t stream) {
    require(cublasCreate(&handle_), "cublasCreate");
    require(cublasSetStream(handle_, stream), "cublasSetStream");
    require(cublasSetMathMode(handle_, CUBLAS_PEDANTIC_MATH), "cublasSetMathMode");
  }
  blas(blas const&) = delete;
  blas& operator=(blas const&) = delete;
  ~blas() { cublasDestroy(handle_); }

  /// y = x wᵀ
  void forward(matrix const& x, matrix const& w, matrix const& y) const {
    product(CUBLAS_OP_T, CUBLAS_OP_N, w.rows, x.rows, x.columns, w.data, w.columns, x.data, x.columns, y.data);
  }
  /// grad_x = grad_y w
  void backward(matrix const& grad_y, matrix const& w, matrix const& grad_x) const {
    product(CUBLAS_OP_N, CUBLAS_OP_N, w.columns, grad_y.rows, w.rows, w.data, w.columns, grad_y.data, w.rows,
            grad_x.data);
  }

 private:
  static void require(cublasStatus_t status, char const* call) {
    if (status != CUBLAS_STATUS_SUCCESS)
      mixbit::fail(mixbit::error_id::device_failure, call, ": ", cublasGetStatusString(status));
  }
  /// Column-major c[m, n] = a b, as cuBLAS has it.
  void product(cublasOperation_t of_a, cublasOperation_t of_b, std::int64_t m, std::int64_t n, std::int64_t k,
               float const* a, std::int64_t lda, float const* b, std::int64_t ldb, float* c) const {
    float const one = 1, none = 0;
    require(cublasSgemm(handle_, of_a, of_b, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), &one, a,
                        static_cast<int>(lda), b, static_cast<int>(ldb), &none, c, static_cast<int>(m)),
            "cublasSgemm");
  }
  cublasHandle_t handle_ = nullptr;
};

/// y = relu(x w1ᵀ) w2ᵀ, its loss, and in the backward the layers' scores.
class network {
  auto op() const {
    return [this](matrix x, matrix w, matrix y) { blas_.forward(x, w, y); };
  }
  /// The same op with a result of its own, for scores.
  auto trial(matrix y) const {
    return [this, y](matrix x, matrix w) {
      blas_.forward(x, w, y);
      return y;
    };
  }

 public:
  network(gpu device, std::int64_t batch, std::int64_t width, std::int64_t hidden, std::int64_t outputs)
      : device_{device}, blas_{device.stream()} {
    for (auto [m, rows, columns] : {std::tuple{&up, hidden, width}, {&down, outputs, hidden}, {&input, batch, width},
                                    {&target, batch, outputs}, {&middle_, batch, hidden}, {&activated_, batch, hidden},
                                    {&output_, batch, outputs}, {&grad_output_, batch, outputs},
                                    {&grad_middle_, batch, hidden}, {&trial_, batch, hidden},
                                    {&trial_out_, batch, outputs}, {&loss_, std::int64_t{1}, std::int64_t{1}}}) {
      memory_.emplace_back(device_, static_cast<std::size_t>(rows * columns));
      *m = {memory_.back().data(), rows, columns};
    }
  }
  network(network const&) = delete;
  network& operator=(network const&) = delete;

  void set(matrix const& m, std::vector<float> const& values) {
    device_.copy_from_host(m.data, values.data(), values.size() * sizeof(float));
  }

  void forward() {
    apply_into(up_slots, input, up, middle_, op());
    relu(middle_.data, activated_.data, middle_.size(), device_.stream());
    apply_into(down_slots, activated_, down, output_, op());
  }
  /// After forward(): gradients, and in a scoring pass the scores of both layers.
  void backward() {
    mean_squares(output_.data, target.data, grad_output_.data, loss_.data, output_.size(), device_.stream());
    score(down_slots, activated_, down, trial(trial_out_), grad_output_);
    blas_.backward(grad_output_, down, grad_middle_);
    relu_backward(activated_.data, grad_middle_.data, grad_middle_.size(), device_.stream());
    score(up_slots, input, up, trial(trial_), grad_middle_);
  }
  /// The one number that leaves the device.
  float loss() {
    forward();
    mean_squares(output_.data, target.data, grad_output_.data, loss_.data, output_.size(), device_.stream());
    float value = 0;
    device_.copy_to_host(&value, loss_.data, sizeof value);
    return value;
  }

  template <class Visit>
  void walk(Visit&& visit) {
    visit(mixbit::linear("up", up_slots, up));
    visit(mixbit::linear("down", down_slots, down));
  }

  matrix up, down, input, target;
  slots up_slots, down_slots;

 private:
  gpu device_;
  blas blas_;
  std::vector<mixbit::buffer<gpu, float>> memory_;
  matrix middle_, activated_, output_, grad_output_, grad_middle_, trial_, trial_out_, loss_;
};

}  // namespace mlp
