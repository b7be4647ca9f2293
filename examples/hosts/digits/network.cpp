#include "network.hpp"

#include <algorithm>

namespace digits {

namespace {

/// [images, channels, height, width] to [images, features].
matrix flattened(tensor4 const& x) {
  matrix y = matrix::from_shape({x.shape(0), x.shape(1) * x.shape(2) * x.shape(3)});
  std::copy_n(x.data(), x.size(), y.data());
  return y;
}

tensor4 unflattened(matrix const& x, tensor4::shape_type const& shape) {
  tensor4 y = tensor4::from_shape(shape);
  std::copy_n(x.data(), x.size(), y.data());
  return y;
}

}  // namespace

matrix network::logits(tensor4 const& images) {
  tensor4 const features = relu(conv2.forward(relu(conv1.forward(images))));
  return fc2.forward(relu(fc1.forward(flattened(features))));
}

void network::backward(matrix const& grad_logits) {
  // a ReLU's output is the next layer's input
  matrix const grad_hidden = relu_backward(fc2.input(), fc2.backward(grad_logits));
  matrix const grad_features = relu_backward(fc1.input(), fc1.backward(grad_hidden));
  tensor4::shape_type const image{grad_features.shape(0), 16, 4, 4};
  conv1.backward(relu_backward(conv2.input(), conv2.backward(unflattened(grad_features, image))));
}

}  // namespace digits
