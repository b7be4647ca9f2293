// The layers: convolution, linear, ReLU. What a layer needs for mixbit is its slots, and its product as a callable
// that takes the operands: forward routes it through `apply`; backward calls `score`, borrows the operands that the
// forward has used with `lend`, and lets clipped quantizers mask the gradients.
//
// A product receives xtensor adaptors over the library's memory. It takes pointer and shape from them and returns a
// tensor that owns its elements.
#pragma once

#include "mixbit/adapters/xtensor.hpp"
#include "mixbit/quantizer/score.hpp"
#include "mixbit/reference/scalar.hpp"
#include "tensors.hpp"

namespace digits {

using backend = mixbit::reference::scalar;

/// A trained tensor. Its gradient is kept, and added to, only while it trains.
template <class Tensor>
struct parameter {
  Tensor value;
  Tensor gradient{};
  bool trains = false;

  void start_training() {
    gradient = Tensor(value.shape(), 0.0f);
    trains = true;
  }
};

/// How a square kernel moves over an image.
struct conv_window {
  std::size_t kernel = 3, stride = 1, padding = 0;

  std::size_t steps(std::size_t size) const { return (size + 2 * padding - kernel) / stride + 1; }
};

/// y[n,o] = b[o] + Σ w[o,i] ⋆ x[n,i], zeros around the image.
class conv2d {
 public:
  parameter<tensor4> weight;  ///< [out, in, kernel, kernel]
  parameter<vector> bias;     ///< [out]
  mixbit::quantizer_slots<backend> slots;

  /// Weights uniform in ±sqrt(6 / inputs of one sum), as He et al. 2015 propose before a ReLU.
  conv2d(std::size_t in, std::size_t out, conv_window window, random_source& random);

  tensor4 forward(tensor4 const& x);
  /// The gradient of the last forward's x; adds to the parameters' gradients where they train.
  tensor4 backward(tensor4 const& grad_y);
  tensor4 const& input() const { return x_; }

 private:
  /// Shapes of one call.
  struct sizes {
    std::size_t images, in, height, width, out, out_height, out_width;
  };
  template <class X>
  sizes sizes_for(X const& x) const {
    return {x.shape(0), x.shape(1), x.shape(2), x.shape(3), weight.value.shape(0), window_.steps(x.shape(2)),
            window_.steps(x.shape(3))};
  }
  auto product() const {
    return [this](auto const& x, auto const& w) { return convolve(sizes_for(x), x.data(), w.data()); };
  }
  tensor4 convolve(sizes const& s, float const* x, float const* w) const;
  void add_weight_gradient(sizes const& s, float const* x, float const* grad_y, float* grad_w) const;
  void add_input_gradient(sizes const& s, float const* w, float const* grad_y, float* grad_x) const;

  conv_window window_;
  tensor4 x_;  // of the last forward
};

/// y = x · Wᵀ + b.
class linear {
 public:
  parameter<matrix> weight;  ///< [out, in]
  parameter<vector> bias;    ///< [out]
  mixbit::quantizer_slots<backend> slots;

  linear(std::size_t in, std::size_t out, random_source& random);

  matrix forward(matrix const& x);
  matrix backward(matrix const& grad_y);
  matrix const& input() const { return x_; }

 private:
  auto product() const {
    return [this](auto const& x, auto const& w) { return multiply(x.shape(0), x.data(), w.data()); };
  }
  matrix multiply(std::size_t rows, float const* x, float const* w) const;

  matrix x_;  // of the last forward
};

/// max(x, 0).
template <class Tensor>
Tensor relu(Tensor x) {
  for (float& v : x.storage()) v = v > 0 ? v : 0;
  return x;
}

/// The gradient of x, given y = relu(x).
template <class Tensor>
Tensor relu_backward(Tensor const& y, Tensor grad) {
  for (std::size_t i = 0; i < grad.size(); ++i)
    if (!(y.data()[i] > 0)) grad.data()[i] = 0;
  return grad;
}

}  // namespace digits
