#include <doctest/doctest.h>

#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/safetensors_writer.hpp"
#include "support/error_text.hpp"
#include "support/golden_file.hpp"
#include "support/safetensors_bytes.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

std::vector<named_tensor> everything_in(safetensors_file const& file) {
  std::vector<named_tensor> result;
  for (auto const& name : file.names()) result.push_back({name, file.at(name)});
  return result;
}

/// An element type and a shape over bytes that count up.
const_tensor_ref counting(dtype type, std::vector<std::int64_t> const& shape, std::vector<std::uint8_t>& bytes) {
  auto const g = dense_geometry(type, std::span{shape});
  bytes.resize(static_cast<std::size_t>(g.bytes()));
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{1});
  return {g, bytes.data()};
}

TEST_CASE("safetensors_writer: the golden checkpoints come back byte for byte") {
  for (std::string const name : {"fp8", "fp8_pc_pt", "fp8_pb_wo", "int8_wo", "mixed"}) {
    temporary_folder const folder;
    auto const source = golden_folder() / "export" / name / "model.safetensors";
    auto const file = safetensors_file::open(source);
    auto tensors = everything_in(file);
    CHECK(tensors.size() > 39);
    std::shuffle(tensors.begin(), tensors.end(), std::mt19937{7});
    write_safetensors(folder / "out", tensors, file.metadata());
    CHECK_MESSAGE((read_text(folder / "out") == read_text(source)), name);
  }
}

TEST_CASE("safetensors_writer: every type at every rank comes back with its shape and bytes") {
  temporary_folder const folder;
  std::vector<std::vector<std::int64_t>> const shapes{
      {},        {0},          {5},             {1},                {2, 3},            {3, 0},
      {2, 1, 3}, {2, 3, 2, 2}, {1, 2, 1, 2, 1}, {2, 1, 2, 3, 1, 2}, {0, 1, 2, 3, 4, 5}};
  std::vector<std::vector<std::uint8_t>> storage(dtype_count * shapes.size());
  std::vector<named_tensor> tensors;
  for (int type = 0; type < dtype_count; ++type)
    for (std::size_t s = 0; s < shapes.size(); ++s) {
      auto const name = std::string{name_of(static_cast<dtype>(type))} + "." + std::to_string(s);
      tensors.push_back({name, counting(static_cast<dtype>(type), shapes[s], storage[tensors.size()])});
    }
  write_safetensors(folder / "all", tensors, {{"key \"é\"\n", "value\\"}, {"", ""}});
  auto const file = safetensors_file::open(folder / "all");
  CHECK(file.metadata() == safetensors_metadata{{"key \"é\"\n", "value\\"}, {"", ""}});
  CHECK(file.names().size() == tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    auto const t = file.at(tensors[i].name);
    CHECK(t.type == tensors[i].tensor.type);
    CHECK(t.same_shape(tensors[i].tensor));
    CHECK(is_aligned(t));
    CHECK(file.bytes(tensors[i].name).size() == storage[i].size());
    CHECK((storage[i].empty() || std::memcmp(t.data, storage[i].data(), storage[i].size()) == 0));
  }
}

TEST_CASE("safetensors_writer: the order and the header are the reference implementation's") {
  temporary_folder const folder;
  std::array<char const*, dtype_count> const names{"U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16",
                                                   "U16", "I16", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"};
  std::array<dtype, dtype_count> const types{
      dtype::u64, dtype::i64, dtype::f64, dtype::f32, dtype::u32, dtype::i32, dtype::bf16, dtype::f16,
      dtype::u16, dtype::i16, dtype::f8_e8m0, dtype::f8_e4m3, dtype::f8_e5m2, dtype::i8, dtype::u8, dtype::boolean};
  std::vector<std::uint8_t> bytes(8);
  std::vector<named_tensor> tensors;
  for (std::size_t i = dtype_count; i-- > 0;)
    tensors.push_back({names[i], {dense_geometry(types[i], {1}), bytes.data()}});
  write_safetensors(folder / "out", tensors, {{"k\xc3\xa9\x01/\x7f\"", "v"}});
  // what safetensors 0.8.0 wrote for the same tensors
  CHECK(safetensors_header(read_text(folder / "out")) ==
        "{\"__metadata__\":{\"k\xc3\xa9\\u0001/\x7f\\\"\":\"v\"},"
        R"("U64":{"dtype":"U64","shape":[1],"data_offsets":[0,8]},)"
        R"("I64":{"dtype":"I64","shape":[1],"data_offsets":[8,16]},)"
        R"("F64":{"dtype":"F64","shape":[1],"data_offsets":[16,24]},)"
        R"("F32":{"dtype":"F32","shape":[1],"data_offsets":[24,28]},)"
        R"("U32":{"dtype":"U32","shape":[1],"data_offsets":[28,32]},)"
        R"("I32":{"dtype":"I32","shape":[1],"data_offsets":[32,36]},)"
        R"("BF16":{"dtype":"BF16","shape":[1],"data_offsets":[36,38]},)"
        R"("F16":{"dtype":"F16","shape":[1],"data_offsets":[38,40]},)"
        R"("U16":{"dtype":"U16","shape":[1],"data_offsets":[40,42]},)"
        R"("I16":{"dtype":"I16","shape":[1],"data_offsets":[42,44]},)"
        R"("F8_E8M0":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[44,45]},)"
        R"("F8_E4M3":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[45,46]},)"
        R"("F8_E5M2":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[46,47]},)"
        R"("I8":{"dtype":"I8","shape":[1],"data_offsets":[47,48]},)"
        R"("U8":{"dtype":"U8","shape":[1],"data_offsets":[48,49]},)"
        R"("BOOL":{"dtype":"BOOL","shape":[1],"data_offsets":[49,50]}}     )");
  write_safetensors(folder / "none", {});
  CHECK(read_text(folder / "none") == std::string{"\x08\0\0\0\0\0\0\0{}      ", 16});
}

TEST_CASE("safetensors_writer: names of one type are sorted by their bytes") {
  temporary_folder const folder;
  std::vector<float> const value(1);
  std::vector<named_tensor> tensors;
  for (char const* name : {"layers.10", "layers.2", "Z", "\xc3\xa9", "a", ""})
    tensors.push_back({name, dense_view(value.data(), {})});
  write_safetensors(folder / "out", tensors);
  CHECK(safetensors_file::open(folder / "out").names() ==
        std::vector<std::string>{"", "Z", "a", "layers.10", "layers.2", "\xc3\xa9"});
}

TEST_CASE("safetensors_writer: strided tensors are written in the order of their axes") {
  temporary_folder const folder;
  std::vector<std::int32_t> values(2 * 3 * 4);
  std::iota(values.begin(), values.end(), 0);
  auto const dense = dense_view(std::as_const(values).data(), {2, 3, 4});
  auto const logical = [](const_tensor_ref const& t) {  // by the definition of strides
    std::vector<std::int32_t> result;
    for (std::int64_t i = 0; i < t.shape[0]; ++i)
      for (std::int64_t j = 0; j < t.shape[1]; ++j)
        for (std::int64_t k = 0; k < t.shape[2]; ++k)
          result.push_back(t.as<std::int32_t>()[i * t.stride[0] + j * t.stride[1] + k * t.stride[2]]);
    return result;
  };
  std::vector<const_tensor_ref> views;
  std::array<std::int8_t, 3> order{0, 1, 2};
  do views.push_back(permuted(dense, order));
  while (std::next_permutation(order.begin(), order.end()));
  auto part = dense;  // the first two of the last axis
  part.shape[2] = 2;
  views.push_back(part);
  auto broadcast = dense;
  broadcast.stride[1] = 0;
  views.push_back(broadcast);
  auto reversed = dense;
  reversed.stride[0] = -12;
  reversed.data = values.data() + 12;
  views.push_back(reversed);
  auto single = dense;  // an axis of size 1 may have any stride
  single.shape[1] = 1;
  single.stride[1] = 12345;
  views.push_back(single);
  for (auto const& view : views) {
    write_safetensors(folder / "out", std::vector<named_tensor>{{"t", view}});
    auto const file = safetensors_file::open(folder / "out");
    auto const t = file.at("t");
    auto const expected = logical(view);
    CHECK(t.same_shape(view));
    CHECK(std::vector<std::int32_t>(t.as<std::int32_t>(), t.as<std::int32_t>() + t.size()) == expected);
  }
}

TEST_CASE("safetensors_writer: tensors that are made one by one, and mistakes on the way") {
  temporary_folder const folder;
  write_text(folder / "out", "old");
  std::vector<float> const a{1, 2};
  std::vector<std::uint8_t> const b{3};
  std::vector<named_geometry> const plan{{"b", dense_geometry(dtype::u8, {1})}, {"a", dense_geometry(dtype::f32, {2})}};
  auto const wrong = [&](auto&& steps) {
    return error_text(error_id::file_content, [&] {
      safetensors_writer writer{folder / "out", plan};
      steps(writer);
    });
  };
  CHECK(says(wrong([&](auto& w) { w.write(dense_view(b.data(), {1})); }), "/out'", "'a' is uint8 [1]", "float32 [2]"));
  CHECK(says(wrong([&](auto& w) { w.write(dense_view(a.data(), {1, 2})); }), "'a' is float32 [1,2]"));
  CHECK(says(wrong([&](auto& w) { w.write(dense_view(a.data(), {2})), w.commit(); }), "'b' was announced"));
  CHECK(read_text(folder / "out") == "old");
  CHECK(listing(folder.path()) == std::set<std::string>{"out"});
  safetensors_writer writer{folder / "out", plan};
  CHECK(writer.order()[0].name == "a");
  writer.write(dense_view(a.data(), {2}));
  writer.write(dense_view(b.data(), {1}));
  CHECK(says(error_text(error_id::file_content, [&] { writer.write(dense_view(b.data(), {1})); }), "more tensors"));
  writer.commit();
  CHECK(safetensors_file::open(folder / "out").read_as_float("a") == a);
}

TEST_CASE("safetensors_writer: what no file can hold is refused, and nothing is written") {
  temporary_folder const folder;
  std::vector<float> const value(2);
  auto const t = dense_view(value.data(), {2});
  auto const refusal = [&](error_id id, std::vector<named_tensor> const& tensors,
                           safetensors_metadata const& meta = {}) {
    return error_text(id, [&] { write_safetensors(folder / "out", tensors, meta); });
  };
  auto const u = dense_view(reinterpret_cast<std::uint8_t const*>(value.data()), {2});
  CHECK(says(refusal(error_id::file_content, {{"w", t}, {"w", t}}), "/out'", "the name 'w' appears twice"));
  CHECK(says(refusal(error_id::file_content, {{"w", t}, {"v", t}, {"w", u}}), "the name 'w' appears twice"));
  CHECK(says(refusal(error_id::file_content, {{"__metadata__", t}}), "'__metadata__' is reserved"));
  CHECK(says(refusal(error_id::file_content, {}, {{"k", "1"}, {"k", "2"}}), "metadata key 'k' appears twice"));
  CHECK(says(refusal(error_id::file_format, {{"\xff", t}}), "/out'", "not UTF-8"));
  CHECK(says(refusal(error_id::file_content, {{"w", {t, nullptr}}}), "'w' of shape ", "has no data"));
  auto far_away = t;
  far_away.where = device::cuda;
  CHECK(says(refusal(error_id::tensor_layout, {{"w", far_away}}), "'w' is in device memory"));
  auto huge = dense_geometry(dtype::f32, {1, 1});
  huge.shape[0] = huge.shape[1] = std::int64_t{1} << 31;
  CHECK(says(refusal(error_id::file_content, {{"w", {huge, value.data()}}}), "'w' of shape [2147483648,2147483648]"));
  CHECK(says(error_text(error_id::file_open, [&] { write_safetensors(folder / "no/out", {}); }), "no/out'"));
  CHECK(listing(folder.path()).empty());
}

TEST_CASE("safetensors_writer: a full file system leaves the old file and names it") {
  temporary_folder const folder;
  write_text(folder / "out", "old");
  std::vector<float> const values(100000, 1.0f);
  std::string text;
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit const limited{50000, before.rlim_max};
  auto const handler = ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &limited);
  text = error_text(error_id::file_open, [&] {
    write_safetensors(folder / "out", std::vector<named_tensor>{{"w", dense_view(values.data(), {100000})}});
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  CHECK(says(text, "cannot write", "/out'", "File too large"));
  CHECK(read_text(folder / "out") == "old");
  CHECK(listing(folder.path()) == std::set<std::string>{"out"});
}

}  // namespace
