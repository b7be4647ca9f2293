// An ONNX model as data, and writing it: nodes, initializers, inputs and outputs of one graph (onnx.proto3 of ONNX
// 1.23, with its field numbers). What quantizers become is io/onnx_export.hpp's.
//
// Contract: write_onnx checks names before it writes: every input of a node is there when the node comes, and no name
// appears twice. The opset is the lowest that the types and attributes need, 13 at least. A model of 2 GiB and more is
// refused, which is protobuf's limit: this version writes no external data. The file appears whole or not at all.
// Errors: `file_content`, naming the file and the node or value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "mixbit/core/quoted.hpp"
#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/protobuf_writer.hpp"

namespace mixbit {

/// TensorProto.DataType.
enum class onnx_type : int { f32 = 1, u8 = 2, i8 = 3, i64 = 7, f8_e4m3 = 17, u4 = 21, i4 = 22 };

constexpr int bits_of(onnx_type type) {
  switch (type) {
    case onnx_type::f32: return 32;
    case onnx_type::i64: return 64;
    case onnx_type::u4: case onnx_type::i4: return 4;
    default: return 8;
  }
}

using onnx_shape = std::vector<std::int64_t>;
/// A size, or the name of one that is known when the graph runs.
using onnx_dimension = std::variant<std::int64_t, std::string>;
using onnx_attribute_value = std::variant<std::int64_t, float, std::string, std::vector<std::int64_t>>;

struct onnx_attribute {
  std::string name;
  onnx_attribute_value value;
};

struct onnx_initializer {
  std::string name;
  onnx_type type = onnx_type::f32;
  onnx_shape shape;
  std::string bytes;  ///< little endian, row-major; of 4 bits two elements a byte, the first in the low nibble
};

struct onnx_node {
  std::string op;
  std::vector<std::string> inputs, outputs;  ///< an empty input is one that is left out
  std::vector<onnx_attribute> attributes = {};
};

struct onnx_value {
  std::string name;
  std::vector<onnx_dimension> shape;
};

/// Inputs and outputs are float32.
struct onnx_graph {
  std::string name;
  std::vector<onnx_node> nodes = {};
  std::vector<onnx_initializer> initializers = {};
  std::vector<onnx_value> inputs = {}, outputs = {};
};

namespace detail::onnx {

/// An opset, and the IR version that came with it.
struct version {
  std::int64_t opset, ir;
};
inline constexpr version base{13, 7}, with_fp8{19, 9}, with_int4_and_blocks{21, 10};  // 21: output_dtype too

inline version version_for(onnx_graph const& graph) {
  version needed = base;
  auto const need = [&](version v) { needed = v.opset > needed.opset ? v : needed; };
  for (auto const& i : graph.initializers) {
    if (i.type == onnx_type::f8_e4m3) need(with_fp8);
    if (bits_of(i.type) == 4) need(with_int4_and_blocks);
  }
  for (auto const& n : graph.nodes)
    for (auto const& a : n.attributes)
      if ((a.name == "block_size" || a.name == "output_dtype") && n.op.ends_with("uantizeLinear"))
        need(with_int4_and_blocks);
  return needed;
}

inline protobuf_message attribute(onnx_attribute const& a) {
  protobuf_message m;
  m.text(1, a.name);
  std::visit([&]<class T>(T const& value) {
    if constexpr (std::is_same_v<T, float>) m.real(2, value).number(20, 1);
    else if constexpr (std::is_same_v<T, std::int64_t>) m.number(3, value).number(20, 2);
    else if constexpr (std::is_same_v<T, std::string>) m.text(4, value).number(20, 3);
    else m.packed(8, value).number(20, 7);
  }, a.value);
  return m;
}

inline protobuf_message node(onnx_node const& n) {
  protobuf_message m;
  for (auto const& i : n.inputs) m.text(1, i);
  for (auto const& o : n.outputs) m.text(2, o);
  m.text(3, n.outputs.front() + "/" + n.op).text(4, n.op);
  for (auto const& a : n.attributes) m.message(5, attribute(a));
  return m;
}

inline protobuf_message initializer(onnx_initializer const& i) {
  protobuf_message m;
  m.packed(1, i.shape).number(2, static_cast<int>(i.type)).text(8, i.name).text(9, i.bytes);
  return m;
}

inline protobuf_message value(onnx_value const& v) {
  protobuf_message shape, tensor, type, m;
  for (auto const& d : v.shape) {
    protobuf_message dimension;
    if (auto const* const size = std::get_if<std::int64_t>(&d)) dimension.number(1, *size);
    else dimension.text(2, std::get<std::string>(d));
    shape.message(1, dimension);
  }
  tensor.number(1, static_cast<int>(onnx_type::f32)).message(2, shape);
  type.message(1, tensor);
  return m.text(1, v.name).message(2, type);
}

/// Throws `file_content` for a graph that is none.
inline void check(onnx_graph const& graph, std::string const& where) {
  auto const refuse = [&](auto const&... why) { fail(error_id::file_content, where, ": ", why...); };
  std::unordered_set<std::string_view> names;
  auto const add = [&](std::string const& name) {
    if (name.empty() || !names.insert(name).second)
      refuse("the value ", in_quotes(name), name.empty() ? " has no name" : " appears twice");
  };
  for (auto const& i : graph.inputs) add(i.name);
  for (auto const& i : graph.initializers) {
    add(i.name);
    std::int64_t size = 1;
    for (std::int64_t const d : i.shape) size *= d;
    if (static_cast<std::int64_t>(i.bytes.size()) != (size * bits_of(i.type) + 7) / 8)
      refuse("the initializer ", in_quotes(i.name), " has ", i.bytes.size(), " bytes for ", size, " elements");
  }
  for (auto const& n : graph.nodes) {
    if (n.outputs.empty()) refuse("a node ", in_quotes(n.op), " has no outputs");
    for (auto const& i : n.inputs)
      if (!i.empty() && !names.contains(i))
        refuse("the node ", in_quotes(n.outputs.front()), " reads ", in_quotes(i), ", which nothing before it gives");
    for (auto const& o : n.outputs) add(o);
  }
  if (graph.outputs.empty()) refuse("the graph has no outputs");
  for (auto const& o : graph.outputs)
    if (!names.contains(o.name)) refuse("the output ", in_quotes(o.name), " is given by nothing");
}

inline std::uint64_t weight_bytes(onnx_graph const& graph) {
  std::uint64_t bytes = 0;
  for (auto const& i : graph.initializers) bytes += i.bytes.size();
  return bytes;
}

/// Throws `file_content` for weights that no message holds.
inline void check_size(std::uint64_t bytes, std::string const& where) {
  constexpr std::uint64_t most = std::numeric_limits<std::int32_t>::max() - (1u << 20);  // the rest of a graph
  if (bytes > most)
    fail(error_id::file_content, where, ": weights of ", bytes, " bytes; a protobuf message has at most 2 GiB, and ",
         "this version writes no external data");
}

}  // namespace detail::onnx

/// The lowest opset that has all that the graph uses.
inline std::int64_t opset_of(onnx_graph const& graph) { return detail::onnx::version_for(graph).opset; }

/// Checks and writes a ModelProto.
inline void write_onnx(std::filesystem::path const& path, onnx_graph const& graph) {
  std::string const where = "cannot write " + in_quotes(path);
  detail::onnx::check(graph, where);
  detail::onnx::check_size(detail::onnx::weight_bytes(graph), where);
  detail::protobuf_message g, model, opset;
  for (auto const& n : graph.nodes) g.message(1, detail::onnx::node(n));
  g.text(2, graph.name);
  for (auto const& i : graph.initializers) g.message(5, detail::onnx::initializer(i));
  for (auto const& i : graph.inputs) g.message(11, detail::onnx::value(i));
  for (auto const& o : graph.outputs) g.message(12, detail::onnx::value(o));
  auto const version = detail::onnx::version_for(graph);
  opset.text(1, "").number(2, version.opset);
  model.number(1, version.ir).text(2, "mixbit").message(7, g).message(8, opset);
  write_file_atomically(path, model.bytes());
}

}  // namespace mixbit
