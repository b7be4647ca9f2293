// The container: bytes of the header, alignment, what is refused. What tensors hold: gguf_checkpoint_test.cpp.
#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "mixbit/io/gguf_writer.hpp"
#include "support/error_text.hpp"
#include "support/python.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

gguf_tensor tensor(std::string name, gguf_type type, std::initializer_list<std::int64_t> shape) {
  return {std::move(name), type, dense_geometry(dtype::f32, shape)};
}

template <class T>
T at(std::string const& bytes, std::size_t where) {
  T value;
  REQUIRE(where + sizeof value <= bytes.size());
  std::memcpy(&value, bytes.data() + where, sizeof value);
  return value;
}

}  // namespace

TEST_CASE("gguf: the header by its description, data at multiples of 32") {
  temporary_folder const folder;
  float const x[6] = {1, 2, 3, 4, 5, 6};
  float const y[1] = {7};
  gguf_writer writer{folder / "f", {{"a", std::uint32_t{9}}, {"b", std::string{"text"}}},
                     {tensor("x", gguf_type::f32, {2, 3}), tensor("y", gguf_type::f32, {1})}};
  writer.write(std::as_bytes(std::span{x}.first(2)));
  writer.write(std::as_bytes(std::span{x}.subspan(2)));
  writer.write(std::as_bytes(std::span{y}));
  writer.commit();
  std::string const file = read_text(folder / "f");
  CHECK(file.substr(0, 4) == "GGUF");
  CHECK(at<std::uint32_t>(file, 4) == 3);
  CHECK(at<std::uint64_t>(file, 8) == 2);
  CHECK(at<std::uint64_t>(file, 16) == 2);
  CHECK(file.substr(24 + 8, 1) == "a");
  CHECK(at<std::uint32_t>(file, 33) == 4);  // uint32
  CHECK(at<std::uint32_t>(file, 37) == 9);
  CHECK(at<std::uint32_t>(file, 50) == 8);  // string
  CHECK(at<std::uint64_t>(file, 54) == 4);
  CHECK(at<std::uint64_t>(file, 66) == 1);  // the first tensor's name
  CHECK(at<std::uint32_t>(file, 75) == 2);  // axes, the last first
  CHECK(at<std::uint64_t>(file, 79) == 3);
  CHECK(at<std::uint64_t>(file, 87) == 2);
  CHECK(at<std::uint32_t>(file, 95) == 0);
  CHECK(at<std::uint64_t>(file, 99) == 0);
  CHECK(at<std::uint64_t>(file, 107 + 9 + 4 + 8 + 4) == 32);  // the second tensor's offset: 24 bytes, padded
  REQUIRE(file.size() == 160 + 32 + 32);
  CHECK(std::memcmp(file.data() + 160, x, sizeof x) == 0);
  CHECK(at<float>(file, 192) == 7);
  CHECK(file.substr(184, 8) == std::string(8, '\0'));
}

TEST_CASE("gguf: the gguf package reads metadata of every kind") {
  if (skipped_without_python("gguf metadata read by the gguf package", {"gguf"})) return;
  temporary_folder const folder;
  using strings = std::vector<std::string>;
  gguf_metadata const metadata{{"general.architecture", std::string{"llama"}}, {"flag", true}, {"u32", 4000000000u},
                               {"i32", std::int32_t{-5}}, {"u64", std::uint64_t{1} << 40}, {"f", 0.1f},
                               {"tokens", strings{"a", "", "ü"}}, {"types", std::vector<std::int32_t>{1, -2}},
                               {"scores", std::vector<float>{0.5f}}};
  gguf_writer writer{folder / "f", metadata, {tensor("t", gguf_type::f16, {2, 3, 1, 2})}};
  std::vector<half> const values(12, from_float<half>(1.5f));
  writer.write(std::as_bytes(std::span{values}));
  writer.commit();
  CHECK(run_python(R"(
import sys, gguf
r = gguf.GGUFReader(sys.argv[1])
v = {k: f.contents() for k, f in r.fields.items() if not k.startswith("GGUF.")}
print(v.pop("f") == __import__("numpy").float32(0.1), v)
t = r.tensors[0]
print(len(r.tensors), t.name, t.tensor_type.name, t.data.shape, t.data.tolist()[1][2])
)", {folder / "f"}) == "True {'general.architecture': 'llama', 'flag': True, 'u32': 4000000000, 'i32': -5, 'u64': "
                      "1099511627776, 'tokens': ['a', '', 'ü'], 'types': [1, -2], 'scores': [0.5]}\n"
                      "1 t F16 (2, 3, 1, 2) [[1.5, 1.5]]\n");
}

TEST_CASE("gguf: names, shapes and keys that a file cannot have are refused before it is there") {
  temporary_folder const folder;
  auto const opening = [&](gguf_metadata const& m, std::vector<gguf_tensor> t) {
    return error_text(error_id::file_content, [&] { gguf_writer{folder / "out", m, std::move(t)}; });
  };
  gguf_type const f32 = gguf_type::f32;
  CHECK(says(opening({}, {tensor("a", f32, {1}), tensor("a", f32, {2})}), "/out'", "'a' appears twice"));
  CHECK(says(opening({}, {tensor(std::string(64, 'n'), f32, {1})}), "1 to 63 bytes, this one 64"));
  CHECK(opening({}, {tensor(std::string(63, 'n'), f32, {1})}) == "(no error)");
  CHECK(says(opening({}, {tensor("", f32, {1})}), "this one 0"));
  CHECK(says(opening({}, {tensor("s", f32, {})}), "'s'", "ranks of 1 to 4, and it is []"));
  CHECK(says(opening({}, {tensor("s", f32, {1, 1, 1, 1, 1})}), "ranks of 1 to 4"));
  CHECK(says(opening({}, {tensor("e", f32, {0, 2})}), "'e'", "no elements"));
  CHECK(says(opening({}, {tensor("w", gguf_type::q8_0, {2, 48})}), "Q8_0 takes rows of a multiple of 32"));
  CHECK(says(opening({}, {tensor("w", gguf_type::nvfp4, {2, 32})}), "NVFP4 takes rows of a multiple of 64"));
  CHECK(says(opening({{"k", true}, {"k", false}}, {}), "'k' appears twice"));
  CHECK(says(opening({{"", true}}, {}), "is empty"));
  CHECK(says(opening({{"general.alignment", 64u}}, {}), "'general.alignment' cannot be given"));
  CHECK(listing(folder.path()).empty());
}

TEST_CASE("gguf: a file that lacks bytes or gets too many is not written") {
  temporary_folder const folder;
  std::byte const bytes[8] = {};
  {
    gguf_writer writer{folder / "out", {}, {tensor("x", gguf_type::f32, {2})}};
    writer.write(std::span{bytes}.first(5));
    CHECK(says(error_text(error_id::file_content, [&] { writer.commit(); }), "'x' lacks 3 of its 8 bytes"));
    CHECK(says(error_text(error_id::file_content, [&] { writer.write(bytes); }), "'x' has 8 bytes; more"));
    writer.write(std::span{bytes}.first(3));
    CHECK(says(error_text(error_id::file_content, [&] { writer.write(bytes); }), "more tensors"));
  }
  CHECK(listing(folder.path()).empty());
}
