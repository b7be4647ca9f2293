// Weights of a Hugging Face checkpoint that stay as they are, in the file's type.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

#include "mixbit/calib/host_floats.hpp"

namespace mixbit::detail::hf {

/// A host's tensor dense in PyTorch's order and in the file's type; exact where the host's type is no narrower.
template <backend B>
std::vector<std::byte> converted(B& device, const_tensor_ref const& w, dtype type) {
  std::vector<std::byte> dense(static_cast<std::size_t>(w.size()) * size_of(type));
  auto const values = fetch_floats(device, w);
  visit_compute(type, [&]<class To>(To) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      To const to = from_float<To>(values[i]);
      std::memcpy(dense.data() + i * sizeof to, &to, sizeof to);
    }
  });
  return dense;
}

}  // namespace mixbit::detail::hf
