// A tensor under the name that it has in a file, whatever the file's format.
#pragma once

#include <string>

#include "mixbit/core/tensor_view.hpp"

namespace mixbit {

/// A tensor to write; any strides, written in the order of its axes.
struct named_tensor {
  std::string name;
  const_tensor_ref tensor;
};

}  // namespace mixbit
