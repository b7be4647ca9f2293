#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/npy.hpp"
#include "support/error_text.hpp"
#include "support/golden_file.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

std::filesystem::path written_by_numpy(std::string const& name) { return golden_folder() / "npy" / (name + ".npy"); }

npy_file from_text(std::string const& text) { return npy_file::from_bytes(std::as_bytes(std::span{text}), "it"); }

std::string refusal(std::string const& text) {
  return error_text(error_id::file_format, [&] { from_text(text); });
}

/// A file of version 1.0 with this header and so many bytes behind it.
std::string file_of(std::string const& header, std::size_t bytes) {
  std::string text{"\x93NUMPY\x01\x00", 8};
  text += static_cast<char>(header.size() & 0xff);
  text += static_cast<char>(header.size() >> 8);
  return text + header + std::string(bytes, '\0');
}

std::string with(std::string const& descr, std::string const& shape) {
  return "{'descr': " + descr + ", 'fortran_order': False, 'shape': " + shape + ", }\n";
}

TEST_CASE("npy: what NumPy wrote has its type, shape and elements") {
  struct expected {
    char const* name;
    dtype type;
  };
  for (expected e : {expected{"bool", dtype::boolean}, {"int8", dtype::i8}, {"uint8", dtype::u8}, {"int16", dtype::i16},
                     {"uint16", dtype::u16}, {"float16", dtype::f16}, {"int32", dtype::i32}, {"uint32", dtype::u32},
                     {"float32", dtype::f32}, {"int64", dtype::i64}, {"uint64", dtype::u64}, {"float64", dtype::f64}}) {
    auto const file = npy_file::open(written_by_numpy(e.name));
    auto const t = file.tensor();
    CHECK_MESSAGE(t.type == e.type, e.name);
    CHECK(to_string(t) == "[2,3]");
    CHECK(t.is_dense());
    CHECK(is_aligned(t));
  }
  auto const f = npy_file::open(written_by_numpy("float32")), h = npy_file::open(written_by_numpy("float16"));
  auto const i = npy_file::open(written_by_numpy("int64"));
  for (int k = 0; k < 6; ++k) {
    CHECK(f.tensor().as<float>()[k] == static_cast<float>(k));
    CHECK(to_float(h.tensor().as<half>()[k]) == static_cast<float>(k));
    CHECK(i.tensor().as<std::int64_t>()[k] == k);
  }
}

TEST_CASE("npy: ranks 0 to 6, no elements, special values") {
  auto const scalar = npy_file::open(written_by_numpy("scalar"));
  CHECK(scalar.tensor().rank == 0);
  CHECK(*scalar.tensor().as<float>() == 1.5f);
  CHECK(to_string(npy_file::open(written_by_numpy("vector")).tensor()) == "[7]");
  CHECK(npy_file::open(written_by_numpy("empty")).tensor().size() == 0);
  CHECK(to_string(npy_file::open(written_by_numpy("rank6")).tensor()) == "[2,2,2,2,2,2]");
  auto const file = npy_file::open(written_by_numpy("specials"));
  float const* const v = file.tensor().as<float>();
  CHECK(fp::is_nan(v[0]));
  CHECK(fp::bits(v[1]) == 0x7f800000u);
  CHECK(fp::bits(v[3]) == 0x80000000u);
  CHECK(fp::bits(v[4]) == 1u);
}

TEST_CASE("npy: Fortran's order is strides") {
  auto const file = npy_file::open(written_by_numpy("fortran"));
  auto const t = file.tensor();
  CHECK(t.stride[0] == 1);
  CHECK(t.stride[1] == 2);
  CHECK(t.as<float>()[1 * t.stride[0] + 2 * t.stride[1]] == 5.0f);
}

TEST_CASE("npy: big-endian elements are copied into this machine's order") {
  temporary_folder const folder;
  auto file = npy_file::open(written_by_numpy("big_endian"));
  CHECK_FALSE(file.in_place());
  npy_file const moved = std::move(file);
  auto const t = moved.tensor();
  CHECK(t.type == dtype::f32);
  REQUIRE(to_string(t) == "[3]");
  CHECK(is_aligned(t));
  for (int k = 0; k < 3; ++k) CHECK(t.as<float>()[k] == static_cast<float>(k));
  write_npy(folder / "out", t);
  CHECK(npy_file::open(folder / "out").in_place());
  CHECK(says(refusal(file_of(with("'>f4'", "(2,)"), 7)), "needs 8 bytes", "has 7"));
  std::string const bytes = file_of(with("'>i1'", "(2,)"), 2);
  CHECK(from_text(bytes).in_place());  // one byte has no order
}

TEST_CASE("npy: versions 2.0 and 3.0 are read") {
  for (std::string const name : {"version2", "version3"}) {
    auto const file = npy_file::open(written_by_numpy(name));
    CHECK(file.tensor().as<float>()[4] == 4.0f);
  }
}

TEST_CASE("npy: what is written is what NumPy writes, byte for byte") {
  temporary_folder const folder;
  for (std::string const name : {"bool", "int8", "uint8", "int16", "uint16", "float16", "int32", "uint32", "float32",
                                 "int64", "uint64", "float64", "scalar", "vector", "empty", "rank6", "specials"}) {
    auto const file = npy_file::open(written_by_numpy(name));
    write_npy(folder / "out", file.tensor());
    CHECK_MESSAGE((read_text(folder / "out") == read_text(written_by_numpy(name))), name);
  }
  auto const fortran = npy_file::open(written_by_numpy("fortran"));
  write_npy(folder / "out", fortran.tensor());  // row-major, whatever the strides
  auto const read = npy_file::open(folder / "out");
  for (int k = 0; k < 6; ++k) CHECK(read.tensor().as<float>()[k] == static_cast<float>(k));
}

TEST_CASE("npy: types that npy has no name for are not written") {
  temporary_folder const folder;
  bfloat16 const v[2] = {};
  auto const text = error_text(error_id::file_content, [&] { write_npy(folder / "out", dense_view(v, {2})); });
  CHECK(says(text, "out", "bfloat16"));
  CHECK(!std::filesystem::exists(folder / "out"));
}

TEST_CASE("npy: NumPy's other files are refused by name") {
  auto const opening = [](std::string const& name) {
    return error_text(error_id::file_format, [&] { npy_file::open(written_by_numpy(name)); });
  };
  CHECK(says(opening("refused_text"), "refused_text.npy", "'<U2' is not read"));
  CHECK(says(opening("refused_records"), "arrays of records are not read"));
  CHECK(says(opening("refused_raw"), "V2' is not read", "use safetensors"));
  CHECK(says(opening("refused_rank7"), "rank 7"));
  CHECK(says(error_text(error_id::file_open, [] { npy_file::open("/nowhere/x.npy"); }), "/nowhere/x.npy"));
}

TEST_CASE("npy: broken files are refused before their elements are used") {
  std::string const good = with("'<f4'", "(2,)");
  CHECK(from_text(file_of(good, 8)).tensor().size() == 2);
  CHECK(from_text(file_of("{\"shape\":(),\"fortran_order\":True,\"descr\":\"|u1\"}", 1)).tensor().rank == 0);
  for (std::size_t n = 0; n < file_of(good, 8).size(); ++n)
    CHECK_MESSAGE(says(refusal(file_of(good, 8).substr(0, n)), "it: "), n);
  CHECK(says(refusal(file_of(good, 9)), "needs 8 bytes", "has 9"));
  std::string other = file_of(good, 8);
  other[6] = 4;
  CHECK(says(refusal(other), "version 4"));
  CHECK(says(refusal(file_of(with("'<f4'", "(-1,)"), 8)), "not a size"));
  CHECK(says(refusal(file_of(with("'<f4'", "(4611686018427387904,2)"), 8)), "overflows"));
  CHECK(says(refusal(file_of(with("'<f4'", "(99999999999999999999,)"), 8)), "not a size"));
  CHECK(says(refusal(file_of(with("'<c8'", "(2,)"), 8)), "'<c8' is not read"));
  CHECK(says(refusal(file_of(with("f4", "(2,)"), 8)), "no quoted text"));
  CHECK(says(refusal(file_of("{'descr': '<f4', 'shape': (2,)}", 8)), "needs descr"));
  CHECK(says(refusal(file_of("{'descr': '<f4', 'descr': '<f4'}", 8)), "'descr' twice"));
  CHECK(says(refusal(file_of("{'x': '<f4'}", 8)), "unknown key 'x'"));
  CHECK(says(refusal(file_of("{'fortran_order': 1}", 8)), "neither True nor False"));
  CHECK(says(refusal(file_of("[]", 8)), "no dictionary"));
  CHECK(says(refusal(file_of(good + "x", 8)), "goes on"));
}

}  // namespace
