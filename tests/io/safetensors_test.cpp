#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/io/safetensors.hpp"
#include "support/error_text.hpp"
#include "support/safetensors_bytes.hpp"
#include "support/temporary_folder.hpp"

namespace {

using mixbit::dtype;
using mixbit::error_id;
using mixbit::safetensors_file;
using namespace mixbit::test;

auto const& file_of = safetensors_bytes;

std::string zeros(std::size_t count) { return std::string(count, '\0'); }

/// One byte, at the start of the data.
std::string const byte_entry = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";

safetensors_file parse(std::string const& file) {
  return safetensors_file::from_bytes(std::as_bytes(std::span{file}), "'f'");
}

std::string refusal(std::string const& file) {
  return error_text(error_id::file_format, [&] { parse(file); });
}

/// One tensor 'w' whose entry is `entry`, before `size` bytes of data.
std::string one_tensor(std::string const& entry, std::size_t size) {
  return file_of("{\"w\":" + entry + "}", zeros(size));
}

std::string const good_header =
    R"({"__metadata__":{"format":"pt","n":"1"},"b":{"dtype":"F32","shape":[2],"data_offsets":[6,14]},)"
    R"("a":{"dtype":"I16","shape":[3,1],"data_offsets":[0,6]},"e":{"dtype":"U8","shape":[4,0],"data_offsets":[6,6]}})";
std::string const good_data{"\x01\0\x02\0\x03\0\0\0\x80\x3f\0\0\0\xc0", 14};

TEST_CASE("safetensors: names come in the order of the data, tensors in place") {
  auto const bytes = file_of(good_header, good_data);
  auto const file = parse(bytes);
  CHECK(file.names() == std::vector<std::string>{"a", "e", "b"});
  CHECK(file.metadata() == mixbit::safetensors_metadata{{"format", "pt"}, {"n", "1"}});
  auto const a = file.at("a");
  CHECK(a.type == dtype::i16);
  CHECK(to_string(a) == "[3,1]");
  CHECK(a.is_dense());
  CHECK(static_cast<char const*>(a.data) == bytes.data() + 8 + good_header.size());
  CHECK(file.bytes("a").size() == 6);
  CHECK(file.bytes("e").empty());
  CHECK(to_string(file.at("e")) == "[4,0]");
  CHECK(file.read_as_float("b") == std::vector<float>{1.0f, -2.0f});
  CHECK(file.contains("b"));
  CHECK_FALSE(file.contains("__metadata__"));
  CHECK(says(error_text(error_id::file_content, [&] { file.at("c"); }), "'f'", "no tensor 'c'"));
  CHECK(says(error_text(error_id::file_content, [&] { file.read_as_float("a"); }), "'f'", "'a'", "int16"));
}

TEST_CASE("safetensors: open maps a file; a moved reader still finds its names") {
  temporary_folder const folder;
  write_text(folder / "m.safetensors", file_of(good_header, good_data));
  auto first = safetensors_file::open(folder / "m.safetensors");
  auto const* const address = first.at("a").data;
  auto second = std::move(first);
  CHECK(second.at("a").data == address);
  CHECK(second.read_as_float("b") == std::vector<float>{1.0f, -2.0f});
  second = safetensors_file::open(folder / "m.safetensors");
  CHECK(second.read_as_float("b") == std::vector<float>{1.0f, -2.0f});
  write_text(folder / "bad.safetensors", "short");
  CHECK(says(error_text(error_id::file_format, [&] { safetensors_file::open(folder / "bad.safetensors"); }),
             (folder / "bad.safetensors").string(), "5 bytes"));
  CHECK(says(error_text(error_id::file_open, [&] { safetensors_file::open(folder / "none"); }), "none'"));
}

TEST_CASE("safetensors: floats of the three compute types convert exactly at any alignment") {
  std::string const f16{"\0\x3c\0\xc0\x01\0\0\x7c", 8}, bf16{"\x80\x3f\0\xc0\x80\xff\x01\0", 8};
  for (std::size_t shift = 0; shift < 8; ++shift) {  // the header's length moves the data
    auto const header = R"({"h":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},)"
                        R"("b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]}})" + std::string(shift, ' ');
    auto const bytes = file_of(header, f16 + bf16);
    auto const file = parse(bytes);
    CHECK(file.read_as_float("h") == std::vector<float>{1.0f, -2.0f, 0x1p-24f, INFINITY});
    CHECK(file.read_as_float("b") == std::vector<float>{1.0f, -2.0f, -INFINITY, 0x1p-133f});
    CHECK(is_aligned(file.at("h")) == (reinterpret_cast<std::uintptr_t>(file.at("h").data) % 2 == 0));
    CHECK(is_aligned(file.at("h")) == ((8 + header.size()) % 2 == 0));
  }
}

TEST_CASE("safetensors: a file that is cut anywhere is refused") {
  auto const whole = file_of(good_header, good_data);
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK_MESSAGE(says(refusal(whole.substr(0, size)), "[mixbit.502] 'f': "), size);
  CHECK(says(refusal(whole.substr(0, whole.size() - 1)), "tensor 'b': ends at byte 14", "only 13"));
  CHECK(says(refusal(whole + "x"), "the last tensor 'b' ends at byte 14", "has 15"));
}

TEST_CASE("safetensors: the header's length is checked before it is used") {
  auto const with_length = [](std::uint64_t length) {
    auto file = file_of("{}      ", "");
    std::memcpy(file.data(), &length, sizeof length);
    return refusal(file);
  };
  CHECK(says(with_length(100'000'001), "header of 100000001 bytes is above the limit of 100000000"));
  CHECK(says(with_length(100'000'000), "header of 100000000 bytes goes beyond the end of the file of 16 bytes"));
  CHECK(says(with_length(9), "header of 9 bytes goes beyond"));
  CHECK(with_length(8) == "(no error)");
  CHECK(says(with_length(7), "ends at byte 0 of the data, but the file has 1"));
  CHECK(says(with_length(0), "not a JSON object"));
  for (std::uint64_t const length : {UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 8, std::uint64_t{1} << 63})
    CHECK(says(with_length(length), "above the limit"));
}

TEST_CASE("safetensors: headers that are not an object of tensors are refused") {
  for (char const* const bad :
       {"[]", "3", "null", "\"x\"", " {}", "\xef\xbb\xbf{}", "{", "{}}", "{} x", "NaN", "{\"a\":"})
    CHECK_MESSAGE(says(refusal(file_of(bad, "")), "[mixbit.502] 'f': ", "header"), bad);
  CHECK(says(refusal(file_of(std::string{"{}\0\0", 4}, "")), "a NUL at byte 2"));
  CHECK(says(refusal(file_of(R"({"w":1})", "")), "tensor 'w': is not an object"));
  CHECK(says(refusal(file_of(R"({"w":{}})", "")), "tensor 'w': needs dtype, shape and data_offsets"));
  CHECK(says(refusal(file_of("{\"\xff\":{}}", "")), "header: not JSON at byte"));
  CHECK(parse(file_of("{}", "")).names().empty());
  CHECK(parse(file_of("{}  \n", "")).names().empty());
}

TEST_CASE("safetensors: keys that appear twice are refused where they stand") {
  CHECK(says(refusal(file_of("{\"w\":" + byte_entry + ",\"w\":" + byte_entry + "}", "x")), "'f'",
             "the key 'w' appears twice"));
  CHECK(says(refusal(one_tensor(R"({"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]})", 1)), "'f'",
             "the key 'shape' appears twice in 'w'"));
  CHECK(says(refusal(file_of(R"({"__metadata__":{"a":"1","a":"2"}})", "")), "'a' appears twice in '__metadata__'"));
  CHECK(says(refusal(file_of(R"({"__metadata__":{},"__metadata__":{}})", "")), "'__metadata__' appears twice"));
}

TEST_CASE("safetensors: __metadata__ holds strings only") {
  for (char const* const bad : {"1", "null", "[]", "{\"k\":1}", "{\"k\":null}", "{\"k\":{\"a\":\"b\"}}", "\"text\""})
    CHECK_MESSAGE(says(refusal(file_of("{\"__metadata__\":" + std::string{bad} + "}", "")), "'f': __metadata__"), bad);
}

struct bad_entry {
  char const* entry;
  std::size_t data;
  char const* reason;
};

TEST_CASE("safetensors: entries that break the rules are refused with the tensor's name and the reason") {
  bad_entry const entries[] = {
      {R"({"dtype":"F33","shape":[1],"data_offsets":[0,4]})", 4, "unknown dtype 'F33'"},
      {R"({"dtype":"f32","shape":[1],"data_offsets":[0,4]})", 4, "unknown dtype 'f32'"},
      {R"({"dtype":"F4","shape":[2],"data_offsets":[0,1]})", 1, "unknown dtype 'F4'"},
      {R"({"dtype":4,"shape":[1],"data_offsets":[0,4]})", 4, "dtype is not a string"},
      {R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})", 4, "shape is not an array"},
      {R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4, "shape holds what is not an unsigned integer"},
      {R"({"dtype":"F32","shape":[-0],"data_offsets":[0,0]})", 0, "shape holds what is not an unsigned integer"},
      {R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})", 4, "shape holds what is not an unsigned integer"},
      {R"({"dtype":"F32","shape":["1"],"data_offsets":[0,4]})", 4, "shape holds what is not an unsigned integer"},
      {R"({"dtype":"F32","shape":[true],"data_offsets":[0,4]})", 4, "shape holds what is not an unsigned integer"},
      {R"({"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]})", 4, "not an unsigned integer"},
      {R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]})", 4, "which is too large"},
      {R"({"dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,4]})", 4, "overflows"},
      {R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})", 0, "overflows"},
      {R"({"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]})", 0, "overflows"},
      {R"({"dtype":"U8","shape":[0,9223372036854775807,2],"data_offsets":[0,0]})", 0, "overflows"},
      {R"({"dtype":"U8","shape":[1,1,1,1,1,1,1],"data_offsets":[0,1]})", 1, "rank 7 is above the largest rank of 6"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[0,1,2]})", 1, "data_offsets has 3 numbers, not 2"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[1]})", 1, "data_offsets has 1 numbers, not 2"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":{"a":0,"b":1}})", 1, "data_offsets is not an array"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[-1,0]})", 1, "data_offsets holds what is not an unsigned"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[0,1.0]})", 1, "data_offsets holds what is not an unsigned"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[0,1e0]})", 1, "data_offsets holds what is not an unsigned"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[0,null]})", 1, "data_offsets holds what is not an unsigned"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[1,0]})", 1, "data_offsets go from 1 back to 0"},
      {R"({"dtype":"U8","shape":[2],"data_offsets":[0,1]})", 1, "needs 2 bytes, data_offsets give 1"},
      {R"({"dtype":"F32","shape":[],"data_offsets":[0,1]})", 1, "needs 4 bytes, data_offsets give 1"},
      {R"({"dtype":"U8","shape":[0],"data_offsets":[0,1]})", 1, "needs 0 bytes, data_offsets give 1"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":1})", 1, "unknown field 'extra'"},
      {R"({"dtype":"U8","data_offsets":[0,1]})", 1, "needs dtype, shape and data_offsets"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[1,2]})", 2, "starts at byte 1 after a hole from byte 0"},
      {R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})", 0, "ends at byte 1 of the data, but the file has only 0"},
      {R"({"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]})", 1, "has only 1"},
  };
  for (bad_entry const& bad : entries) {
    auto const text = refusal(one_tensor(bad.entry, bad.data));
    CHECK_MESSAGE(says(text, "[mixbit.502] 'f': tensor 'w': ", bad.reason), text);
  }
  CHECK(says(refusal(file_of("{\"two\\nlines\":1}", "")), "tensor 'two\\x0alines'"));
  CHECK(says(refusal(one_tensor(R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})", 1)), "last tensor 'w'", "has 1"));
}

TEST_CASE("safetensors: holes and overlaps between tensors are refused with the later one's name") {
  auto const two = [](char const* first, char const* second, std::size_t size) {
    auto const entry = [](char const* range) {
      int begin = 0, end = 0;
      std::sscanf(range, "%d,%d", &begin, &end);
      return R"({"dtype":"U8","shape":[)" + std::to_string(end - begin) + R"(],"data_offsets":[)" + range + "]}";
    };
    return refusal(file_of("{\"x\":" + entry(first) + ",\"y\":" + entry(second) + "}", zeros(size)));
  };
  CHECK(two("0,4", "4,8", 8) == "(no error)");
  CHECK(two("4,8", "0,4", 8) == "(no error)");
  CHECK(two("0,4", "4,4", 4) == "(no error)");
  CHECK(two("0,4", "0,0", 4) == "(no error)");
  CHECK(says(two("0,4", "5,9", 9), "tensor 'y': starts at byte 5 after a hole from byte 4"));
  CHECK(says(two("5,9", "0,4", 9), "tensor 'x': starts at byte 5 after a hole"));
  CHECK(says(two("0,4", "3,8", 8), "tensor 'y': starts at byte 3, inside the tensor before it"));
  CHECK(says(two("0,4", "0,4", 4), "tensor 'y': starts at byte 0, inside"));
  CHECK(says(two("0,8", "3,3", 8), "tensor 'y': starts at byte 3, inside"));
  CHECK(says(two("0,4", "4,8", 9), "the last tensor 'y' ends at byte 8", "has 9"));
  CHECK(says(two("0,4", "4,8", 7), "tensor 'y': ends at byte 8", "only 7"));
}

TEST_CASE("safetensors: thousands of damaged files are read or refused, never worse") {
  auto const whole = file_of(good_header, good_data);
  std::mt19937 random{20240607};
  auto const below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  std::string const alphabet = "{}[]\",:0123456789-.eE\\u \x00\xff";
  int refused = 0, read = 0;
  for (int round = 0; round < 6000; ++round) {
    auto file = whole;
    for (std::size_t changes = 1 + below(3); changes > 0; --changes) {
      auto const at = below(file.size());
      switch (below(5)) {
        case 0: file[at] = static_cast<char>(file[at] ^ (1 << below(8))); break;
        case 1: file[at] = alphabet[below(alphabet.size())]; break;
        case 2: file.resize(at + 1); break;
        case 3: file.insert(at, file.substr(below(file.size()), below(40))); break;
        default: file.erase(at, 1 + below(20)); break;
      }
      if (file.empty()) break;
    }
    if (file.size() >= 8 && below(2) == 0) {  // make the length right again, so that the damage is met later
      std::uint64_t const length = file.size() - 8 - std::min<std::size_t>(14, file.size() - 8);
      std::memcpy(file.data(), &length, sizeof length);
    }
    // an own allocation of the exact size: the address sanitizer sees a read beyond it
    std::vector<std::byte> const bytes(std::as_bytes(std::span{file}).begin(), std::as_bytes(std::span{file}).end());
    auto const text = error_text(error_id::file_format, [&] {
      auto const parsed = safetensors_file::from_bytes(bytes, "'f'");
      for (auto const& name : parsed.names()) {
        if (is_compute(parsed.at(name).type)) parsed.read_as_float(name);
        unsigned sum = 0;
        for (std::byte const b : parsed.bytes(name)) sum += std::to_integer<unsigned>(b);
        CHECK(sum < 14 * 256);
      }
    });
    bool const fine = text == "(no error)";
    (fine ? read : refused) += 1;
    if (!fine) CHECK_MESSAGE(says(text, "[mixbit.502] 'f': "), text);
  }
  CHECK(refused > 4000);
  CHECK(read > 100);  // damage to data, names and metadata stays readable
}

}  // namespace
