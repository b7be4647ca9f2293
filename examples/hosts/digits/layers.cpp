#include "layers.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace digits {

namespace {

template <class Tensor>
void initialize(Tensor& weight, std::size_t inputs, random_source& random) {
  float const bound = std::sqrt(6.0f / static_cast<float>(inputs));
  for (float& v : weight.storage()) v = random.uniform(bound);
}

/// The part of grad_w that this call has: masked by a clipped quantizer before it joins that of other calls.
template <class Tensor, class Add>
void add_gradient(parameter<Tensor>& weight, mixbit::quantizer_slots<backend> const& slots, Add const& add) {
  Tensor gradient(weight.value.shape(), 0.0f);
  add(gradient.data());
  weight_backward(slots, weight.value, gradient);
  for (std::size_t i = 0; i < gradient.size(); ++i) weight.gradient.data()[i] += gradient.data()[i];
}

/// Calls f(place in the column matrix, place in the image) for every kernel position that is inside the image. A row
/// of the column matrix is one input channel and kernel position, a column one output pixel.
template <class F>
void for_each_patch_element(conv_window w, std::size_t channels, std::size_t height, std::size_t width, F const& f) {
  std::size_t const rows = w.steps(height), columns = w.steps(width);
  std::size_t at = 0;
  for (std::size_t c = 0; c < channels; ++c)
    for (std::size_t ky = 0; ky < w.kernel; ++ky)
      for (std::size_t kx = 0; kx < w.kernel; ++kx, at += rows * columns)
        for (std::size_t oy = 0; oy < rows; ++oy) {
          std::size_t const y = oy * w.stride + ky - w.padding;  // wraps around below 0, and is then too large
          if (y >= height) continue;
          for (std::size_t ox = 0; ox < columns; ++ox) {
            std::size_t const x = ox * w.stride + kx - w.padding;
            if (x < width) f(at + oy * columns + ox, (c * height + y) * width + x);
          }
        }
}

}  // namespace

conv2d::conv2d(std::size_t in, std::size_t out, conv_window window, random_source& random)
    : weight{tensor4::from_shape({out, in, window.kernel, window.kernel})},
      bias{vector({out}, 0.0f)},
      window_{window} {
  initialize(weight.value, in * window.kernel * window.kernel, random);
}

tensor4 conv2d::forward(tensor4 const& x) {
  x_ = x;
  return apply(slots, x, weight.value, product());
}

tensor4 conv2d::backward(tensor4 const& grad_y) {
  score(slots, x_, weight.value, product(), grad_y);
  sizes const s = sizes_for(x_);
  tensor4 grad_x(x_.shape(), 0.0f);
  lend(slots, x_, weight.value, [&](auto const& xq, auto const& wq) {
    add_input_gradient(s, wq.data(), grad_y.data(), grad_x.data());
    if (weight.trains)
      add_gradient(weight, slots, [&](float* grad_w) { add_weight_gradient(s, xq.data(), grad_y.data(), grad_w); });
  });
  input_backward(slots, x_, grad_x);
  if (bias.trains) {
    std::size_t const area = s.out_height * s.out_width;
    for (std::size_t i = 0; i < grad_y.size(); ++i) bias.gradient(i / area % s.out) += grad_y.data()[i];
  }
  return grad_x;
}

tensor4 conv2d::convolve(sizes const& s, float const* x, float const* w) const {
  std::size_t const area = s.out_height * s.out_width, patch = s.in * window_.kernel * window_.kernel;
  tensor4 y = tensor4::from_shape({s.images, s.out, s.out_height, s.out_width});
  std::vector<float> columns(patch * area);  // what lies outside the image stays 0
  for (std::size_t n = 0; n < s.images; ++n) {
    float const* const image = x + n * s.in * s.height * s.width;
    for_each_patch_element(window_, s.in, s.height, s.width,
                           [&](std::size_t column, std::size_t pixel) { columns[column] = image[pixel]; });
    float* const out = y.data() + n * s.out * area;
    for (std::size_t o = 0; o < s.out; ++o) std::fill_n(out + o * area, area, bias.value(o));
    add_product({s.out, area, patch}, w, columns.data(), out);
  }
  return y;
}

void conv2d::add_weight_gradient(sizes const& s, float const* x, float const* grad_y, float* grad_w) const {
  std::size_t const area = s.out_height * s.out_width, patch = s.in * window_.kernel * window_.kernel;
  std::vector<float> columns(patch * area);
  for (std::size_t n = 0; n < s.images; ++n) {
    float const* const image = x + n * s.in * s.height * s.width;
    for_each_patch_element(window_, s.in, s.height, s.width,
                           [&](std::size_t column, std::size_t pixel) { columns[column] = image[pixel]; });
    add_product_transposed({s.out, patch, area}, grad_y + n * s.out * area, columns.data(), grad_w);
  }
}

void conv2d::add_input_gradient(sizes const& s, float const* w, float const* grad_y, float* grad_x) const {
  std::size_t const area = s.out_height * s.out_width, patch = s.in * window_.kernel * window_.kernel;
  std::vector<float> columns(patch * area);
  for (std::size_t n = 0; n < s.images; ++n) {
    std::fill(columns.begin(), columns.end(), 0.0f);
    add_transposed_product({patch, area, s.out}, w, grad_y + n * s.out * area, columns.data());
    float* const image = grad_x + n * s.in * s.height * s.width;
    for_each_patch_element(window_, s.in, s.height, s.width,
                           [&](std::size_t column, std::size_t pixel) { image[pixel] += columns[column]; });
  }
}

linear::linear(std::size_t in, std::size_t out, random_source& random)
    : weight{matrix::from_shape({out, in})}, bias{vector({out}, 0.0f)} {
  initialize(weight.value, in, random);
}

matrix linear::forward(matrix const& x) {
  x_ = x;
  return apply(slots, x, weight.value, product());
}

matrix linear::backward(matrix const& grad_y) {
  score(slots, x_, weight.value, product(), grad_y);
  std::size_t const rows = x_.shape(0), in = x_.shape(1), out = grad_y.shape(1);
  matrix grad_x(x_.shape(), 0.0f);
  lend(slots, x_, weight.value, [&](auto const& xq, auto const& wq) {
    add_product({rows, in, out}, grad_y.data(), wq.data(), grad_x.data());
    if (weight.trains)
      add_gradient(weight, slots, [&](float* grad_w) {
        add_transposed_product({out, in, rows}, grad_y.data(), xq.data(), grad_w);
      });
  });
  input_backward(slots, x_, grad_x);
  if (bias.trains)
    for (std::size_t i = 0; i < grad_y.size(); ++i) bias.gradient(i % out) += grad_y.data()[i];
  return grad_x;
}

matrix linear::multiply(std::size_t rows, float const* x, float const* w) const {
  std::size_t const out = weight.value.shape(0), in = weight.value.shape(1);
  matrix y = matrix::from_shape({rows, out});
  for (std::size_t r = 0; r < rows; ++r) std::copy_n(bias.value.data(), out, y.data() + r * out);
  add_product_transposed({rows, out, in}, x, w, y.data());
  return y;
}

}  // namespace digits
