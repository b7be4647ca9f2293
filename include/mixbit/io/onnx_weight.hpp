// A graph in the making, and what a quantized weight is in it: codes, scales and a DequantizeLinear.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/io/code_view.hpp"
#include "mixbit/io/onnx_format.hpp"

namespace mixbit::detail::onnx {

inline onnx_shape sizes(geometry const& g) { return {g.shape.begin(), g.shape.begin() + g.rank}; }

/// Integers get one: it says their type, and runtimes look for it. E4M3 gets none, but `output_dtype`: by a zero point
/// that is the byte 0 onnxruntime (1.31) takes E4M3 for uint8, drops a Relu before it and fuses to kernels of integers.
constexpr bool has_zero_point(onnx_type type) { return type != onnx_type::f8_e4m3; }

/// Gives each value a name of its own.
class builder {
 public:
  explicit builder(std::string name) : graph_{std::move(name)} {}

  onnx_graph const& graph() const { return graph_; }

  std::string input(std::string name, std::vector<onnx_dimension> shape) {
    taken_.insert(name);
    graph_.inputs.push_back({name, std::move(shape)});
    return name;
  }

  /// A node of one output, which is called `name`, or after the operator, with a number where that is taken.
  std::string node(std::string op, std::vector<std::string> inputs, std::vector<onnx_attribute> attributes,
                   std::string const& name) {
    std::string const result = free_name(name.empty() ? op : name);
    graph_.nodes.push_back({std::move(op), std::move(inputs), {result}, std::move(attributes)});
    return result;
  }

  std::string add(std::string const& name, onnx_type type, onnx_shape shape, std::string bytes) {
    std::string const result = free_name(name);
    graph_.initializers.push_back({result, type, std::move(shape), std::move(bytes)});
    return result;
  }
  std::string floats(std::string const& name, onnx_shape shape, std::vector<float> const& values) {
    return add(name, onnx_type::f32, std::move(shape),
               {reinterpret_cast<char const*>(values.data()), values.size() * sizeof(float)});
  }

  std::string zeros(std::string const& name, onnx_type type, onnx_shape const& shape) {
    std::int64_t size = 1;
    for (std::int64_t const s : shape) size *= s;
    return add(name, type, shape, std::string(static_cast<std::size_t>((size * bits_of(type) + 7) / 8), '\0'));
  }

  /// An output has a name that the user gives, and is therefore a node of its own.
  void output(std::string const& name, std::string const& x, std::vector<onnx_dimension> shape) {
    taken_.insert(name);
    graph_.nodes.push_back({"Identity", {x}, {name}});
    graph_.outputs.push_back({name, std::move(shape)});
  }

 private:
  std::string free_name(std::string const& name) {
    std::string result = name;
    for (int i = 1; !taken_.insert(result).second; ++i) result = name + "." + std::to_string(i);
    return result;
  }

  onnx_graph graph_;
  std::set<std::string> taken_;
};

/// f(offset in memory of the element) in row-major order of the axes.
template <class F>
void for_each_offset(geometry const& g, F const& f) {
  std::int64_t const width = g.rank == 0 ? 1 : g.shape[g.rank - 1], step = g.rank == 0 ? 1 : g.stride[g.rank - 1];
  for_rows(g, [&](std::int64_t offset, std::int64_t) {
    for (std::int64_t k = 0; k < width; ++k) f(offset + k * step);
  });
}

/// How a weight lies in the graph.
struct weight_form {
  onnx_type type;
  onnx_scales scales;
  geometry shape;                 ///< of the weight
  partition groups;
  std::vector<std::int8_t> order;  ///< axis i of the initializer is the weight's order[i]
};

/// Codes in the order of the initializer's axes.
inline std::string packed(weight_form const& w, code_view const& codes) {
  std::string bytes;
  bool const nibbles = bits_of(w.type) == 4;
  std::int64_t count = 0;
  auto const dense = dense_geometry(dtype::u8, std::span{w.shape.shape.data(), w.order.size()});
  for_each_offset(permuted(dense, w.order), [&](std::int64_t index) {
    if (nibbles && count++ % 2 == 1) bytes.back() = static_cast<char>(bytes.back() | codes[index] << 4);
    else bytes.push_back(static_cast<char>(codes[index]));
  });
  return bytes;
}

/// The weight's value behind a DequantizeLinear. `scales`: one a group, in the groups' row-major order.
inline std::string dequantized(builder& graph, std::string const& name, weight_form const& w, code_view const& codes,
                               std::vector<float> const& scales) {
  std::vector<onnx_attribute> attributes;
  onnx_shape shape;
  std::vector<float> ordered = scales;
  if (w.scales.axis) {
    auto const axis = std::find(w.order.begin(), w.order.end(), *w.scales.axis) - w.order.begin();
    attributes.push_back({"axis", std::int64_t{axis}});
    shape = {static_cast<std::int64_t>(scales.size())};
  }
  if (w.scales.block > 0) {
    attributes.push_back({"block_size", w.scales.block});
    auto const view = permuted(dense_geometry(dtype::f32, std::span{w.groups.groups.data(), w.order.size()}), w.order);
    shape = sizes(view);
    ordered.clear();
    for_each_offset(view, [&](std::int64_t i) { ordered.push_back(scales[static_cast<std::size_t>(i)]); });
  }
  auto const dense = dense_geometry(dtype::u8, std::span{w.shape.shape.data(), w.order.size()});
  std::string const stored = graph.add(name + ".codes", w.type, sizes(permuted(dense, w.order)), packed(w, codes));
  std::string const scale = graph.floats(name + ".scale", shape, ordered);
  std::vector<std::string> inputs{stored, scale};
  if (has_zero_point(w.type)) inputs.push_back(graph.zeros(name + ".zero_point", w.type, shape));
  return graph.node("DequantizeLinear", std::move(inputs), std::move(attributes), name);
}

}  // namespace mixbit::detail::onnx
