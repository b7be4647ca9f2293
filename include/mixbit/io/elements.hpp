// Elements of a tensor in a file, whatever its format: how many bytes they are, their byte order, and writing them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "mixbit/core/dtype.hpp"
#include "mixbit/core/tensor_view.hpp"

namespace mixbit::detail {

/// Bytes of a dense tensor, or nothing where they, or a stride on the way, do not fit 63 bits (zeros count as ones).
inline std::optional<std::uint64_t> checked_bytes(dtype type, std::span<std::int64_t const> shape) {
  std::uint64_t bytes = size_of(type);
  bool empty = false;
  for (std::int64_t const size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) empty = true;
    else if (bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max() / size)) return std::nullopt;
    else bytes *= static_cast<std::uint64_t>(size);
  }
  return empty ? 0 : bytes;
}

/// A copy of elements of `size` bytes each, with the bytes of each reversed.
inline std::vector<std::byte> in_other_byte_order(std::span<std::byte const> bytes, std::size_t size) {
  std::vector<std::byte> result(bytes.size());
  for (std::size_t i = 0; i < bytes.size(); i += size)
    std::reverse_copy(bytes.data() + i, bytes.data() + i + size, result.data() + i);
  return result;
}

/// Appends the elements in row-major order, in runs as long as the memory allows; `out` takes spans of bytes.
template <class Out>
void write_elements(Out& out, const_tensor_ref const& t) {
  if (t.size() == 0) return;
  auto const element = static_cast<std::int64_t>(size_of(t.type));
  int outer = t.rank;  // axes from here on are one run
  std::int64_t run = 1;
  for (; outer > 0 && (t.shape[outer - 1] == 1 || t.stride[outer - 1] == run); --outer) run *= t.shape[outer - 1];
  extents at{};
  std::int64_t offset = 0;
  for (int axis = 0; axis >= 0;) {
    out.write(std::span{t.as<std::byte>() + offset * element, static_cast<std::size_t>(run * element)});
    for (axis = outer - 1; axis >= 0; --axis) {  // the next run: count up, carrying to the left
      offset += t.stride[axis];
      if (++at[axis] < t.shape[axis]) break;
      offset -= t.stride[axis] * t.shape[axis];
      at[axis] = 0;
    }
  }
}

}  // namespace mixbit::detail

namespace mixbit {

/// Whether the data may be read through a pointer to its element type.
inline bool is_aligned(const_tensor_ref const& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.data) % size_of(tensor.type) == 0;
}

}  // namespace mixbit
