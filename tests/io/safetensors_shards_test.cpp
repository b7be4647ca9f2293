#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "mixbit/io/safetensors_set.hpp"
#include "mixbit/io/safetensors_shards.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

/// Ten bytes of value i for tensor i.
struct ten_bytes {
  std::vector<named_geometry> tensors;
  explicit ten_bytes(std::vector<std::string> const& names) {
    for (auto const& name : names) tensors.push_back({name, dense_geometry(dtype::u8, std::vector<std::int64_t>{10})});
  }
  void write(std::filesystem::path const& folder, std::int64_t limit, bool all = true) const {
    staged_output out{folder};
    safetensors_shards shards{out, "checkpoint", tensors, {{"format", "pt"}}, limit};
    CHECK(shards.order().size() == tensors.size());
    for (std::size_t i = 0; i < shards.order().size() - (all ? 0 : 1); ++i) {
      std::string const data(10, shards.order()[i].name.back());
      shards.write({shards.order()[i].shape, data.data()});
    }
    shards.commit();
    out.commit();
  }
};

TEST_CASE("safetensors_shards: shards are as full as the limit allows, in the order given, and come back as one set") {
  temporary_folder const folder;
  ten_bytes const five{{"e", "d", "c", "b", "a"}};
  five.write(folder.path(), 29);
  CHECK(listing(folder / "checkpoint") ==
        std::set<std::string>{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                              "model-00003-of-00003.safetensors", "model.safetensors.index.json"});
  auto const set = safetensors_set::open(folder / "checkpoint");
  CHECK(set.names() == std::vector<std::string>{"d", "e", "b", "c", "a"});  // of a file, by name
  for (auto const& name : set.names()) CHECK(*set.at(name).as<char>() == name.front());
  CHECK(set.shards().front().file.metadata() == safetensors_metadata{{"format", "pt"}});
  auto const index = read_json_file(folder / "checkpoint" / "model.safetensors.index.json");
  CHECK(index["metadata"]["total_size"] == 50);
  CHECK(index["weight_map"].dump() ==
        R"({"a":"model-00003-of-00003.safetensors","b":"model-00002-of-00003.safetensors",)"
        R"("c":"model-00002-of-00003.safetensors","d":"model-00001-of-00003.safetensors",)"
        R"("e":"model-00001-of-00003.safetensors"})");
}

TEST_CASE("safetensors_shards: the limit is met exactly, and a tensor above it has a file to itself") {
  temporary_folder const folder;
  ten_bytes const two{{"a", "b"}};
  two.write(folder / "exact", 20);
  CHECK(listing(folder / "exact" / "checkpoint") == std::set<std::string>{"model.safetensors"});
  two.write(folder / "small", 1);
  CHECK(safetensors_set::open(folder / "small" / "checkpoint").shards().size() == 2);
}

TEST_CASE("safetensors_shards: what an earlier output left goes, the user's files stay") {
  temporary_folder const folder;
  ten_bytes const three{{"a", "b", "c"}};
  three.write(folder.path(), 10);
  write_text(folder / "checkpoint" / "model-notes.txt", "mine");
  three.write(folder.path(), 20);
  CHECK(safetensors_set::open(folder / "checkpoint").shards().size() == 2);
  CHECK(listing(folder / "checkpoint").size() == 4);
  three.write(folder.path(), 30);
  CHECK(listing(folder / "checkpoint") == std::set<std::string>{"model-notes.txt", "model.safetensors"});
  three.write(folder.path(), 20);
  CHECK(listing(folder / "checkpoint").size() == 4);
}

TEST_CASE("safetensors_shards: no tensors are an empty file; a missing one, one too many and no room are refused") {
  temporary_folder const folder;
  ten_bytes const one{{"a"}};
  {
    staged_output out{folder.path()};
    safetensors_shards none{out, "", {}};
    none.commit();
    out.commit();
  }
  CHECK(safetensors_set::open(folder.path()).names().empty());
  CHECK(says(error_text(error_id::file_content, [&] { one.write(folder.path(), 10, false); }), "'a'", "not written"));
  CHECK(says(error_text(error_id::config_value, [&] { one.write(folder.path(), 0); }), "0 bytes"));
  staged_output out{folder.path()};
  safetensors_shards none{out, "", {}};
  std::string const data(10, 'x');
  CHECK(says(error_text(error_id::file_content, [&] { none.write({one.tensors[0].shape, data.data()}); }), "more"));
}

}  // namespace
