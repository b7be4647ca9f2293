// Values of a Hugging Face checkpoint in the file's type: weights that stay as they are, scales of inputs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
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

/// In which type a file holds a pre_quant_scale: the weight's, as ModelOpt's files do, from whose type loaders take the
/// parameter's; float32 where that would change a value, which calibration never gives (it rounds them to that type).
inline dtype pre_quant_scale_type(dtype weight, std::vector<float> const& scale) {
  return visit_compute(weight, [&]<class T>(T) {
    bool const exact = std::all_of(scale.begin(), scale.end(), [](float v) { return to_float(from_float<T>(v)) == v; });
    return exact ? weight : dtype::f32;
  });
}

/// The bytes of values that the type holds exactly.
inline std::vector<std::uint8_t> bytes_in(dtype type, std::vector<float> const& values) {
  std::vector<std::uint8_t> bytes(values.size() * static_cast<std::size_t>(size_of(type)));
  visit_compute(type, [&]<class T>(T) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      T const to = from_float<T>(values[i]);
      std::memcpy(bytes.data() + i * sizeof to, &to, sizeof to);
    }
  });
  return bytes;
}

}  // namespace mixbit::detail::hf
