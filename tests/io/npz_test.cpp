#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "mixbit/io/npz.hpp"
#include "support/error_text.hpp"
#include "support/golden_file.hpp"
#include "support/python.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;
using names = std::vector<std::string>;

std::filesystem::path written_by_numpy(std::string const& name) { return golden_folder() / "npy" / (name + ".npz"); }

std::string refusal(std::string const& bytes, std::string const& read = {}) {
  return error_text(error_id::file_format, [&] {
    auto const file = npz_file::from_bytes(std::as_bytes(std::span{bytes}), "it");
    if (!read.empty()) file.read(read);
  });
}

template <class T>
void set(std::string& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

/// Where the n-th record of this kind starts.
std::size_t record(std::string const& bytes, char const* mark, int n = 0) {
  std::size_t at = bytes.find(mark);
  for (; n > 0; --n) at = bytes.find(mark, at + 1);
  REQUIRE(at != std::string::npos);
  return at;
}
char const *const local = "PK\x03\x04", *const central = "PK\x01\x02", *const end = "PK\x05\x06";

/// Two arrays as we write them.
std::string good_file() {
  temporary_folder const folder;
  float const x[3] = {1, 2, 3};
  std::uint8_t const y[2] = {4, 5};
  write_npz(folder / "f", std::vector<named_tensor>{{"x", dense_view(x, {3})}, {"y", dense_view(y, {2})}});
  return read_text(folder / "f");
}

/// Every fourth of 0, 1/4 ... 9, which NumPy wrote as arange(n) % 37 / 4.
void check_batch(const_tensor_ref const& t, std::int64_t rows) {
  REQUIRE(t.same_shape(dense_geometry(dtype::f32, {rows, 100})));
  REQUIRE(is_aligned(t));
  int wrong = 0;
  for (std::int64_t i = 0; i < t.size(); ++i) wrong += t.as<float>()[i] != static_cast<float>(i % 37) / 4.0f;
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("crc32: the check value of its definition, at every length and in pieces") {
  std::string const text = "123456789";
  detail::crc32 whole;
  whole.write(std::as_bytes(std::span{text}));
  CHECK(whole.value() == 0xcbf43926u);
  std::string longer;
  for (int i = 0; i < 40; ++i) longer += static_cast<char>(i * 37);
  for (std::size_t split = 0; split <= longer.size(); ++split) {
    detail::crc32 once, twice, bytewise;
    once.write(std::as_bytes(std::span{longer}));
    twice.write(std::as_bytes(std::span{longer}.first(split)));
    twice.write(std::as_bytes(std::span{longer}.subspan(split)));
    for (std::size_t i = 0; i < longer.size(); ++i) bytewise.write(std::as_bytes(std::span{longer}.subspan(i, 1)));
    CHECK(once.value() == twice.value());
    CHECK(once.value() == bytewise.value());
  }
}

TEST_CASE("npz: what NumPy wrote, stored and deflated") {
  auto const stored = npz_file::open(written_by_numpy("stored"));
  auto const deflated = npz_file::open(written_by_numpy("deflated"));
  CHECK(stored.names() == names{"x", "scalar", "empty", "batch"});
  CHECK(deflated.names() == names{"x", "scalar", "batch"});
  for (auto const* file : {&stored, &deflated}) {
    auto const x = file->read("x");
    REQUIRE(x.tensor().same_shape(dense_geometry(dtype::i64, {2, 3})));
    for (int k = 0; k < 6; ++k) CHECK(x.tensor().as<std::int64_t>()[k] == k);
    CHECK(*file->read("scalar").tensor().as<float>() == 1.5f);
  }
  CHECK(stored.read("empty").tensor().size() == 0);
  check_batch(stored.read("batch").tensor(), 3);
  check_batch(deflated.read("batch").tensor(), 40);
  CHECK(npz_file::open(written_by_numpy("none")).names().empty());
}

TEST_CASE("npz: big-endian arrays of every type that NumPy wrote, stored and deflated") {
  auto const file = npz_file::open(written_by_numpy("big_endian"));
  CHECK(file.names() == names{"i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8", "fortran", "i1", "empty"});
  auto const holds = [&](std::string const& name, dtype expected, auto element) {
    using type = decltype(element);
    auto const x = file.read(name);
    auto const t = x.tensor();
    REQUIRE(t.type == expected);
    REQUIRE(to_string(t) == "[2,3]");
    CHECK_FALSE(x.in_place());
    CHECK(is_aligned(t));
    for (int k = 0; k < 6; ++k)
      CHECK_MESSAGE(t.as<type>()[k / 3 * t.stride[0] + k % 3 * t.stride[1]] == static_cast<type>(k - 2), name, ' ', k);
  };
  holds("i2", dtype::i16, std::int16_t{});
  holds("u2", dtype::u16, std::uint16_t{});
  holds("i4", dtype::i32, std::int32_t{});
  holds("u4", dtype::u32, std::uint32_t{});
  holds("f4", dtype::f32, float{});
  holds("i8", dtype::i64, std::int64_t{});
  holds("u8", dtype::u64, std::uint64_t{});
  holds("f8", dtype::f64, double{});
  holds("fortran", dtype::i32, std::int32_t{});
  CHECK(file.read("fortran").tensor().stride[0] == 1);
  auto const halves = file.read("f2");
  for (int k = 0; k < 6; ++k) CHECK(to_float(halves.tensor().as<half>()[k]) == static_cast<float>(k - 2));
  CHECK(file.read("empty").tensor().size() == 0);
  auto const deflated = npz_file::open(written_by_numpy("big_endian_deflated"));
  auto const batch = deflated.read("batch");
  check_batch(batch.tensor(), 40);
}

TEST_CASE("npz: deflate's uncompressed blocks; a comment; members of other kinds are not arrays") {
  auto const file = npz_file::open(written_by_numpy("blocks"));
  CHECK(file.names() == names{"uncompressed"});
  check_batch(file.read("uncompressed").tensor(), 3);
  auto const text = error_text(error_id::file_content, [&] { file.read("notes"); });
  CHECK(says(text, "blocks.npz", "has no array 'notes'"));
}

TEST_CASE("npz: what is written is read again, in place, whatever the strides; the same bytes every time") {
  temporary_folder const folder;
  float const x[6] = {0, 1, 2, 3, 4, 5};
  half const h[3] = {from_float<half>(1.0f), from_float<half>(-2.5f), from_float<half>(65504.0f)};
  auto turned = dense_view(x, {2, 3});
  std::swap(turned.shape[0], turned.shape[1]);
  std::swap(turned.stride[0], turned.stride[1]);
  std::vector<named_tensor> const arrays{{"x", dense_view(x, {2, 3})}, {"turned", turned}, {"h", dense_view(h, {3})}};
  write_npz(folder / "a.npz", arrays);
  write_npz(folder / "b.npz", arrays);
  CHECK(read_text(folder / "a.npz") == read_text(folder / "b.npz"));
  auto const file = npz_file::open(folder / "a.npz");
  CHECK(file.names() == names{"x", "turned", "h"});
  CHECK(file.contains("h"));
  CHECK_FALSE(file.contains("h.npy"));
  for (auto const& name : file.names()) CHECK_MESSAGE(file.read(name).in_place(), name);
  auto const read = file.read("turned"), halves = file.read("h");
  REQUIRE(to_string(read.tensor()) == "[3,2]");
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 2; ++c) CHECK(read.tensor().as<float>()[r * 2 + c] == x[c * 3 + r]);
  CHECK(std::memcmp(halves.tensor().data, h, sizeof h) == 0);
  write_npz(folder / "empty.npz", {});
  CHECK(npz_file::open(folder / "empty.npz").names().empty());
}

TEST_CASE("npz: NumPy reads what is written") {
  if (skipped_without_python("npz read by NumPy", {"numpy"})) return;
  temporary_folder const folder;
  float const x[6] = {0, 0.25f, -2, 3, 1e-42f, 5};
  std::uint8_t const b[2] = {1, 0};
  auto turned = dense_view(x, {2, 3});
  std::swap(turned.shape[0], turned.shape[1]);
  std::swap(turned.stride[0], turned.stride[1]);
  write_npz(folder / "a.npz", std::vector<named_tensor>{{"x/y", turned}, {"b", dense_view(b, {2})}});
  CHECK(run_python(R"(
import sys, zipfile, numpy as np
assert zipfile.ZipFile(sys.argv[1]).testzip() is None
a = np.load(sys.argv[1])
assert a.files == ["x/y", "b"], a.files
assert a["x/y"].dtype == np.float32 and a["b"].dtype == np.uint8
assert (a["x/y"] == np.array([[0, 0.25, -2], [3, 1e-42, 5]], np.float32).T).all()
assert a["b"].tolist() == [1, 0]
print("read")
)", {folder / "a.npz"}) == "read\n");
}

TEST_CASE("npz: what cannot be written is refused, and nothing is left") {
  temporary_folder const folder;
  bfloat16 const v[2] = {};
  float const x[2] = {};
  auto const writing = [&](std::vector<named_tensor> const& arrays) {
    return error_text(error_id::file_content, [&] { write_npz(folder / "out", arrays); });
  };
  CHECK(says(writing({{"w", dense_view(v, {2})}}), "out", "array 'w'", "npy has no bfloat16"));
  CHECK(says(writing({{"w", dense_view(x, {2})}, {"w", dense_view(x, {2})}}), "out", "'w.npy' appears twice"));
  CHECK(says(writing({{std::string(70000, 'n'), dense_view(x, {2})}}), "not 70004"));
  CHECK(listing(folder.path()).empty());
}

TEST_CASE("npz: files that are cut off or lie are refused by name") {
  std::string const good = good_file();
  CHECK(refusal(good, "x") == "(no error)");
  for (std::size_t n = 0; n < good.size(); ++n) CHECK_MESSAGE(says(refusal(good.substr(0, n)), "it: "), n);
  CHECK(says(refusal(good.substr(1)), "it: ", "does not lie within the file"));
  CHECK(says(refusal(good + "x"), "does not end with a directory"));
  auto const changed = [&](char const* mark, std::size_t at, auto value, int n = 0) {
    std::string bytes = good;
    set(bytes, record(bytes, mark, n) + at, value);
    return bytes;
  };
  CHECK(says(refusal(changed(central, 8, std::uint16_t{1})), "'x.npy': it is encrypted"));
  CHECK(says(refusal(changed(central, 10, std::uint16_t{12})), "'x.npy': compression method 12", "deflated"));
  CHECK(says(refusal(changed(central, 20, std::uint32_t{1})), "'x.npy': stored, but its two sizes differ"));
  CHECK(says(refusal(changed(central, 46, 'y', 0)), "'y.npy': appears twice"));
  CHECK(says(refusal(changed(central, 42, std::uint32_t{0}, 1)), "overlaps"));
  CHECK(says(refusal(changed(central, 42, std::uint32_t{4})), "'x.npy': it is not where"));
  CHECK(says(refusal(changed(central, 42, std::uint32_t{0xfffffff0u})), "'x.npy': it is not where"));
  CHECK(says(refusal(changed(central, 42, std::uint32_t{0xffffffffu})), "'x.npy': it is not where"));
  CHECK(says(refusal(changed(central, 28, std::uint16_t{0xffff})), "breaks off after 0 members"));
  CHECK(says(refusal(changed(local, 28, std::uint16_t{0xffff})), "'x.npy': its data go beyond"));
  CHECK(says(refusal(changed(end, 16, std::uint32_t{0xfffffff0u})), "does not lie within"));
  CHECK(says(refusal(changed(end, 12, std::uint32_t{10})), "too short for 2 members"));
  CHECK(says(refusal(changed(end, 10, std::uint16_t{1})), "belong to no member"));
  CHECK(says(refusal(changed(end, 4, std::uint16_t{1})), "several disks"));
  CHECK(says(refusal(changed(central, 16, std::uint32_t{1}), "x"), "'x.npy'", "CRC-32"));
  std::string flipped = good;
  flipped[flipped.find("descr")] ^= 1;
  CHECK(says(refusal(flipped, "x"), "'x.npy'", "CRC-32"));
  CHECK(refusal(flipped, "y") == "(no error)");
  CHECK(says(error_text(error_id::file_format, [] { npz_file::open(written_by_numpy("refused_bzip2")); }),
             "refused_bzip2.npz", "'x.npy': compression method 12"));
  CHECK(says(error_text(error_id::file_open, [] { npz_file::open("/nowhere/x.npz"); }), "/nowhere/x.npz"));
}

TEST_CASE("npz: deflated data that are broken end in a refusal, never beyond their size") {
  std::string const good = read_text(written_by_numpy("deflated"));
  int refused = 0;
  for (std::size_t bit = 8 * record(good, local, 2); bit < 8 * record(good, central); ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    std::string const text = refusal(bytes, "batch");
    if (text == "(no error)") continue;  // a field of the local header that the directory has too
    ++refused;
    CHECK_MESSAGE(says(text, "'batch.npy'"), text);
  }
  CHECK(refused > 1000);
  std::string shorter = good;
  set(shorter, record(shorter, central, 2) + 24, std::uint32_t{100});
  CHECK(says(refusal(shorter, "batch"), "longer than it says"));
  set(shorter, record(shorter, central, 2) + 24, std::uint32_t{0xfffffff0u});
  CHECK(says(refusal(shorter, "batch"), "shorter than it says"));
}

TEST_CASE("zip64: sizes, offsets and counts beyond the narrow fields are written as a reader expects them") {
  using namespace detail;
  std::uint64_t const big = 0xffffffffu, bigger = std::uint64_t{5} << 40;
  auto const u32 = [](std::string const& b, std::size_t at) {
    std::uint32_t v;
    std::memcpy(&v, b.data() + at, sizeof v);
    return v;
  };
  auto const u64 = [](std::string const& b, std::size_t at) {
    std::uint64_t v;
    std::memcpy(&v, b.data() + at, sizeof v);
    return v;
  };
  CHECK_FALSE(needs_zip64(big - 1));
  CHECK(needs_zip64(big));
  std::string const narrow = zip_central({"a.npy", 0, 1, big - 1, big - 1, big - 1, 0});
  CHECK(narrow.size() == zip_central_size + 5);
  CHECK(u32(narrow, 24) == big - 1);
  std::string const wide = zip_central({"a.npy", 0, 1, big, big, bigger, 0});
  REQUIRE(wide.size() == zip_central_size + 5 + 4 + 24);
  for (std::size_t const field : {20u, 24u, 42u}) CHECK(u32(wide, field) == 0xffffffffu);
  CHECK(u64(wide, zip_central_size + 9) == big);
  CHECK(u64(wide, zip_central_size + 25) == bigger);
  std::string const far = zip_central({"a.npy", 0, 1, 7, 7, bigger, 0});
  REQUIRE(far.size() == zip_central_size + 5 + 4 + 8);
  CHECK(u32(far, 24) == 7);
  CHECK(u64(far, zip_central_size + 9) == bigger);
  for (std::uint64_t const at : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{63}, bigger}) {
    std::string const header = zip_local({"a.npy", 0, 1, bigger, bigger, at, 0});
    CHECK((at + header.size()) % 64 == 0);
    CHECK(u64(header, zip_local_size + 9) == bigger);
  }
  CHECK(zip_end(65534, big - 1, 1).size() == zip_end_size);
  CHECK(zip_end(65535, 0, 1).size() == zip_end_size + zip_end64_size + zip_locator64_size);
  CHECK(u64(zip_end(1, bigger, 9), 48) == bigger);
}

TEST_CASE("zip64: fields of the wide directory are read, and refused where they are missing") {
  std::string const good = good_file();
  std::size_t const first = record(good, central), last = record(good, end);
  // the second member's offset goes to an extra field, the directory to a zip64 end
  std::string directory = good.substr(first, last - first);
  std::size_t const second = directory.find(central, 1);
  std::uint32_t offset;
  std::memcpy(&offset, directory.data() + second + 42, sizeof offset);
  set(directory, second + 42, 0xffffffffu);
  std::string const without = good.substr(0, first) + directory + good.substr(last);
  CHECK(says(refusal(without), "'y.npy': it is not where the directory says"));
  set(directory, second + 30, std::uint16_t{12});
  std::string extra(12, '\0');
  set(extra, 0, std::uint16_t{1});
  set(extra, 2, std::uint16_t{8});
  set(extra, 4, std::uint64_t{offset});
  std::string wide = detail::zip_end(70000, first, directory.size() + 12);  // 70000: that it writes both
  set(wide, 24, std::uint64_t{2});
  set(wide, 32, std::uint64_t{2});
  CHECK(refusal(good.substr(0, first) + directory + extra + wide, "y") == "(no error)");
  set(extra, 2, std::uint16_t{4});
  CHECK(says(refusal(good.substr(0, first) + directory + extra + wide, "y"), "'y.npy': its zip64 sizes are missing"));
  set(extra, 2, std::uint16_t{9});
  CHECK(says(refusal(good.substr(0, first) + directory + extra + wide, "y"), "'y.npy': an extra field goes beyond"));
  set(wide, 48, ~std::uint64_t{0});
  CHECK(says(refusal(good.substr(0, first) + directory + extra + wide), "does not lie within"));
  set(wide, 56 + 8, ~std::uint64_t{0});
  CHECK(says(refusal(good.substr(0, first) + directory + extra + wide), "zip64 directory is not there"));
}
