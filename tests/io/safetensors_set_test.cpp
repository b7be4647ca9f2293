#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "mixbit/io/safetensors_set.hpp"
#include "support/error_text.hpp"
#include "support/safetensors_bytes.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

/// A file with one-byte tensors of these names, counting up from `first`.
std::string bytes_of(std::vector<std::string> const& names, char first) {
  std::string header = "{", data;
  for (std::size_t i = 0; i < names.size(); ++i) {
    header += (i == 0 ? "\"" : ",\"") + names[i] + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" +
              std::to_string(i) + "," + std::to_string(i + 1) + "]}";
    data += static_cast<char>(first + static_cast<char>(i));
  }
  return safetensors_bytes(header + "}", data);
}

struct sharded {
  temporary_folder folder;
  sharded() {
    write_text(folder / "one", bytes_of({"b", "a"}, 1));
    write_text(folder / "two", bytes_of({"c"}, 3));
    index(R"({"a": "one", "b": "one", "c": "two"})");
  }
  void index(std::string const& map) const {
    write_text(folder / "model.safetensors.index.json",
               R"({"metadata": {"total_size": 3}, "weight_map": )" + map + "}");
  }
  safetensors_set open() const { return safetensors_set::open(folder.path()); }
  std::string refusal(error_id id, std::string const& map) const {
    index(map);
    return error_text(id, [&] { open(); });
  }
};

TEST_CASE("safetensors_set: size and time are those of the files that are read, not of what was renamed over them") {
  sharded const it;
  auto const set = it.open();
  auto const& one = set.shards().front();
  auto const size = one.file.size();
  auto const time = one.file.written_at();
  CHECK(time > std::int64_t{1'600'000'000} * 1'000'000'000);
  write_text(it.folder / "new", bytes_of({"b", "a", "d"}, 1));
  std::filesystem::last_write_time(it.folder / "new",
                                   std::filesystem::file_time_type::clock::now() + std::chrono::hours{1});
  std::filesystem::rename(it.folder / "new", it.folder / "one");
  CHECK(one.name == "one");
  CHECK(one.file.size() == size);
  CHECK(one.file.written_at() == time);
  it.index(R"({"a": "one", "b": "one", "c": "two", "d": "one"})");
  auto const again = it.open();
  CHECK(again.shards().front().file.size() > size);
  CHECK(again.shards().front().file.written_at() - time > std::int64_t{3599} * 1'000'000'000);
}

TEST_CASE("safetensors_set: shards are one set, each tensor in its place") {
  sharded const it;
  auto set = it.open();
  CHECK(set.names() == std::vector<std::string>{"b", "a", "c"});
  CHECK(set.shards().size() == 2);
  auto const moved = std::move(set);
  for (auto const& [name, value] : {std::pair{"b", 1}, {"a", 2}, {"c", 3}}) {
    CHECK(*moved.at(name).as<unsigned char>() == value);
    CHECK(static_cast<int>(moved.bytes(name).front()) == value);
  }
  CHECK(moved.contains("c"));
  CHECK_FALSE(moved.contains("d"));
  CHECK(says(error_text(error_id::file_content, [&] { (void)moved.at("d"); }), "index.json", "'d'"));
}

TEST_CASE("safetensors_set: a tensor's file has a name of its own in messages") {
  sharded const it;
  auto const set = it.open();
  CHECK(set.label_of("a") == "'" + (it.folder / "one").string() + "'");
  CHECK(set.label_of("c") == "'" + (it.folder / "two").string() + "'");
  CHECK(says(error_text(error_id::file_content, [&] { (void)set.label_of("d"); }), "index.json", "'d'"));
}

TEST_CASE("safetensors_set: a single file is a set too, and goes before an index") {
  sharded const it;
  write_text(it.folder / "model.safetensors", bytes_of({"z"}, 9));
  auto const set = it.open();
  CHECK(set.names() == std::vector<std::string>{"z"});
  CHECK(set.label().find("model.safetensors'") != std::string::npos);
}

TEST_CASE("safetensors_set: an index that lies is refused, naming tensor and shard") {
  sharded const it;
  auto const content = error_id::file_content;
  CHECK(says(it.refusal(content, R"({"a": "one", "b": "one", "c": "one"})"), "'c'", "'one'", "none of this name"));
  CHECK(says(it.refusal(content, R"({"a": "one", "b": "two", "c": "two"})"), "'b'", "'two'"));
  CHECK(says(it.refusal(content, R"({"a": "one", "c": "two"})"), "does not list", "'b'", "'one'"));
  CHECK(says(it.refusal(content, R"({"a": "one", "b": 3, "c": "two"})"), "'b'", "not a string"));
  CHECK(says(it.refusal(content, R"(["one"])"), "weight_map"));
  CHECK(says(it.refusal(error_id::file_open, R"({"a": "one", "b": "one", "c": "three"})"), "'three'", "'c'",
             "missing"));
  CHECK(says(it.refusal(error_id::file_format, R"({"a": "one", "a": "one"})"), "index.json", "a"));
}

TEST_CASE("safetensors_set: a shard's name does not leave the folder") {
  sharded const it;
  for (std::string const name : {"../one", "/one", "sub/one", "..", ".", "", "one\\u0000"})
    CHECK_MESSAGE(says(it.refusal(error_id::file_content, R"({"a": ")" + name + R"("})"), "'a'", "the folder"), name);
}

TEST_CASE("safetensors_set: names that no file can have are errors of the library's own") {
  sharded const it;
  std::string const name(300, 'x');
  CHECK(says(it.refusal(error_id::file_open, R"({"a": ")" + name + R"("})"), "'a'",
             "cannot be opened: File name too long"));
  auto const folder = it.folder / name;
  CHECK(says(error_text(error_id::file_open, [&] { safetensors_set::open(folder); }), "cannot open",
             "File name too long"));
  for (std::string const odd : {"\\u0001", "\\n", "\\ud83d\\ude00"})
    CHECK(says(it.refusal(error_id::file_open, R"({"a": ")" + odd + R"("})"), "'a'", "missing"));
}

TEST_CASE("safetensors_set: one name in two shards is refused") {
  sharded const it;
  write_text(it.folder / "two", bytes_of({"c", "a"}, 3));
  CHECK(says(error_text(error_id::file_content, [&] { it.open(); }), "'a'", "'one'", "'two'"));
}

TEST_CASE("safetensors_set: what is read of a file that changes is an error about that, whatever else it is") {
  sharded const it;
  auto const set = it.open();
  auto const reading = [&](auto const& read) {
    return error_text(error_id::file_open, [&] { set.while_unchanged(read); });
  };
  int read = 0;
  CHECK(reading([&] { ++read; }) == "(no error)");
  CHECK(says(reading([] { fail(error_id::file_open, "its own"); }), "its own"));
  std::filesystem::resize_file(it.folder / "two", 3);
  CHECK(says(reading([&] { ++read; }), "/two': was changed while it was read"));
  CHECK(says(reading([] { fail(error_id::file_content, "holds a NaN"); }), "/two': was changed while it was read"));
  CHECK(read == 2);
}

TEST_CASE("safetensors_set: what is wrong with a shard is said of the shard; an empty folder has no file") {
  sharded const it;
  write_text(it.folder / "two", "short");
  CHECK(says(error_text(error_id::file_format, [&] { it.open(); }), "two", "bytes long"));
  temporary_folder const empty;
  CHECK(says(error_text(error_id::file_open, [&] { safetensors_set::open(empty.path()); }), "model.safetensors"));
}

}  // namespace
