// What the suites of single quantizers share: tensors of a golden file in memory of our own, formats and partitions
// from ModelOpt's attributes, and comparison bit by bit.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "mixbit/core/backend.hpp"
#include "mixbit/core/partition.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/io/json.hpp"
#include "mixbit/io/safetensors.hpp"

namespace golden {

/// A dense tensor that owns its bytes.
struct tensor {
  mixbit::geometry g;
  std::vector<std::max_align_t> memory;

  tensor() = default;
  explicit tensor(mixbit::geometry const& like) : g{like}, memory(like.bytes() / sizeof(std::max_align_t) + 1) {}
  explicit tensor(mixbit::const_tensor_ref const& from) : tensor{static_cast<mixbit::geometry const&>(from)} {
    std::memcpy(memory.data(), from.data, static_cast<std::size_t>(g.bytes()));
  }
  mixbit::tensor_ref ref() { return {g, memory.data()}; }
  template <class T>
  T* as() { return reinterpret_cast<T*>(memory.data()); }
  float value(std::int64_t i) {
    return mixbit::visit_compute(g.type, [&]<class T>(T) { return mixbit::to_float(as<T>()[i]); });
  }
};

/// The first index at which two tensors differ in a bit, NaN equal to NaN; -1 where they are equal.
inline std::int64_t first_difference(tensor& a, tensor& b) {
  if (!a.g.same_shape(b.g) || a.g.type != b.g.type) return 0;
  bool const compute = mixbit::is_compute(a.g.type);
  std::size_t const size = mixbit::size_of(a.g.type);
  for (std::int64_t i = 0; i < a.g.size(); ++i) {
    bool const equal = std::memcmp(a.as<char>() + i * size, b.as<char>() + i * size, size) == 0;
    if (!equal && !(compute && mixbit::fp::is_nan(a.value(i)) && mixbit::fp::is_nan(b.value(i)))) return i;
  }
  return -1;
}

inline mixbit::format format_of(mixbit::json_document const& attributes, mixbit::policy numerics) {
  mixbit::format how;
  how.numerics = numerics;
  auto const& bits = attributes.contains("num_bits") ? attributes.at("num_bits") : mixbit::json_document(8);
  how.element = bits.is_array() ? mixbit::e4m3_element
                                : mixbit::integer_element(bits.get<int>(), attributes.value("unsigned", false),
                                                          attributes.value("narrow_range", false));
  return how;
}

/// Integer keys of `block_sizes` or `bias`; words such as "type" are left out.
inline std::vector<mixbit::axis_block> blocks_of(mixbit::json_document const& sizes) {
  std::vector<mixbit::axis_block> blocks;
  for (auto const& [key, value] : sizes.items()) {
    if (key.find_first_not_of("-0123456789") != std::string::npos) continue;
    std::optional<std::int64_t> const size =
        value.is_null() ? std::nullopt : std::optional<std::int64_t>{value.get<std::int64_t>()};
    blocks.push_back({std::stoi(key), size});
  }
  return blocks;
}

struct grouping {
  mixbit::partition groups;
  std::vector<mixbit::axis_block> blocks;
};

inline grouping grouping_of(mixbit::json_document const& attributes, mixbit::geometry const& g) {
  if (attributes.contains("block_sizes")) {
    auto blocks = blocks_of(attributes.at("block_sizes"));
    return {mixbit::blocks_of(g, blocks), blocks};
  }
  if (!attributes.contains("axis") || attributes.at("axis").is_null()) return {mixbit::per_tensor(g), {}};
  auto const& axis = attributes.at("axis");
  auto const kept = axis.is_array() ? axis.get<std::vector<int>>() : std::vector<int>{axis.get<int>()};
  return {mixbit::per_axes(g, kept), {}};
}

inline bool same_shape(mixbit::geometry const& g, mixbit::amax_shape const& shape) {
  return std::ranges::equal(std::span{g.shape.data(), static_cast<std::size_t>(g.rank)}, shape.sizes());
}

}  // namespace golden
