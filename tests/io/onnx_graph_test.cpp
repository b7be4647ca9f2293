// The container: protobuf's bytes, versions, and graphs that are refused.
#include <doctest/doctest.h>

#include "mixbit/io/onnx_graph.hpp"
#include "support/error_text.hpp"
#include "support/python.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// y = x + c
onnx_graph sum() {
  return {"sum", {{"Add", {"x", "c"}, {"y"}}}, {{"c", onnx_type::f32, {2}, std::string(8, '\0')}},
          {{"x", {std::string{"n"}, 2}}}, {{"y", {std::string{"n"}, 2}}}};
}

}  // namespace

TEST_CASE("protobuf: varints, floats, texts and nested messages as the encoding guide has them") {
  detail::protobuf_message m;
  CHECK(m.number(1, 150).bytes() == std::string{"\x08\x96\x01", 3});
  CHECK(detail::protobuf_message{}.text(2, "testing").bytes() == "\x12\x07testing");
  CHECK(detail::protobuf_message{}.message(3, m).bytes() == std::string{"\x1a\x03\x08\x96\x01", 5});
  CHECK(detail::protobuf_message{}.number(1, -2).bytes() == "\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
  CHECK(detail::protobuf_message{}.number(1, 128).bytes() == "\x08\x80\x01");
  CHECK(detail::protobuf_message{}.number(16, 0).bytes() == std::string{"\x80\x01\x00", 3});
  CHECK(detail::protobuf_message{}.real(2, 1.0f).bytes() == std::string{"\x15\x00\x00\x80\x3f", 5});
  onnx_shape const values{3, 270, 86942};
  CHECK(detail::protobuf_message{}.packed(4, values).bytes() == "\x22\x06\x03\x8e\x02\x9e\xa7\x05");
}

TEST_CASE("onnx: the opset is the lowest that the graph needs") {
  auto g = sum();
  CHECK(opset_of(g) == 13);
  g.initializers.push_back({"z", onnx_type::i8, {}, std::string(1, '\0')});
  CHECK(opset_of(g) == 13);
  auto fp8 = g;
  fp8.initializers.push_back({"f", onnx_type::f8_e4m3, {}, std::string(1, '\0')});
  CHECK(opset_of(fp8) == 19);
  auto blocks = fp8;
  blocks.nodes.push_back({"DequantizeLinear", {"z", "c"}, {"d"}, {{"block_size", std::int64_t{2}}}});
  CHECK(opset_of(blocks) == 21);
  g.initializers.push_back({"i", onnx_type::i4, {3}, std::string(2, '\0')});
  CHECK(opset_of(g) == 21);
}

TEST_CASE("onnx: the checker of the onnx package accepts every kind of attribute and value, and reads them") {
  if (skipped_without_python("ONNX files read by the onnx package", {"onnx"})) return;
  temporary_folder const folder;
  auto g = sum();
  g.nodes.push_back({"LeakyRelu", {"y"}, {"l"}, {{"alpha", 0.25f}}});
  g.nodes.push_back({"Transpose", {"l"}, {"t"}, {{"perm", onnx_shape{1, 0}}}});
  g.nodes.push_back({"Flatten", {"t"}, {"flat"}, {{"axis", std::int64_t{-1}}}});
  std::vector<onnx_attribute> const shuffle{{"blocksize", std::int64_t{2}}, {"mode", std::string{"CRD"}}};
  g.nodes.push_back({"DepthToSpace", {"deep"}, {"wide"}, shuffle});
  g.inputs.push_back({"deep", {1, 4, 1, 1}});
  g.outputs.push_back({"wide", {1, 1, 2, 2}});
  write_onnx(folder / "g.onnx", g);
  CHECK(run_python(R"(
import sys, onnx
m = onnx.load(sys.argv[1])
onnx.checker.check_model(m, full_check=True)
print(m.ir_version, m.opset_import[0].domain == "", m.opset_import[0].version, m.producer_name, m.graph.name)
for n in m.graph.node:
    print(n.op_type, list(n.input), list(n.output), [onnx.helper.get_attribute_value(a) for a in n.attribute])
for v in list(m.graph.input) + list(m.graph.output):
    print(v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
print(onnx.numpy_helper.to_array(m.graph.initializer[0]).tolist())
)", {folder / "g.onnx"}) ==
        "7 True 13 mixbit sum\nAdd ['x', 'c'] ['y'] []\nLeakyRelu ['y'] ['l'] [0.25]\nTranspose ['l'] ['t'] [[1, 0]]\n"
        "Flatten ['t'] ['flat'] [-1]\nDepthToSpace ['deep'] ['wide'] [2, b'CRD']\nx ['n', 2]\ndeep [1, 4, 1, 1]\n"
        "y ['n', 2]\nwide [1, 1, 2, 2]\n[0.0, 0.0]\n");
}

TEST_CASE("onnx: graphs that are none are refused by name, and nothing is written") {
  temporary_folder const folder;
  auto const refusal = [&](auto change) {
    auto g = sum();
    change(g);
    auto const text = error_text(error_id::file_content, [&] { write_onnx(folder / "g.onnx", g); });
    CHECK(listing(folder.path()).empty());
    return text;
  };
  CHECK(says(refusal([](auto& g) { g.nodes[0].inputs[1] = "d"; }), "g.onnx", "'y' reads 'd', which nothing"));
  CHECK(says(refusal([](auto& g) { g.nodes.push_back(g.nodes[0]); }), "'y' appears twice"));
  CHECK(says(refusal([](auto& g) { g.initializers[0].name = "x"; }), "'x' appears twice"));
  CHECK(says(refusal([](auto& g) { g.inputs[0].name = ""; }), "has no name"));
  CHECK(says(refusal([](auto& g) { g.initializers[0].bytes += 'x'; }), "'c' has 9 bytes for 2 elements"));
  CHECK(says(refusal([](auto& g) { g.initializers[0].type = onnx_type::i4; }), "'c' has 8 bytes for 2"));
  CHECK(says(refusal([](auto& g) { g.nodes[0].outputs.clear(); }), "'Add' has no outputs"));
  CHECK(says(refusal([](auto& g) { g.outputs.clear(); }), "no outputs"));
  CHECK(says(refusal([](auto& g) { g.outputs[0].name = "z"; }), "the output 'z'"));
  CHECK(says(error_text(error_id::file_open, [&] { write_onnx(folder / "no/g.onnx", sum()); }), "no/g.onnx"));
  CHECK(says(error_text(error_id::file_content, [] {
    detail::onnx::check_size(std::uint64_t{1} << 31, "cannot write 'big.onnx'");
  }), "big.onnx", "weights of 2147483648 bytes", "2 GiB"));
  CHECK_NOTHROW(detail::onnx::check_size((std::uint64_t{1} << 31) - (1 << 21), ""));
}
