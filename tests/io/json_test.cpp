#include <doctest/doctest.h>

#include <string>

#include "mixbit/io/json.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

namespace {

using mixbit::error_id;
using namespace mixbit::test;

TEST_CASE("json: files") {
  temporary_folder const folder;
  mixbit::write_json_file(folder / "a.json", {{"b", 1}, {"a", {1, 2}}}, -1);
  CHECK(read_text(folder / "a.json") == "{\"b\":1,\"a\":[1,2]}\n");
  CHECK(mixbit::read_json_file(folder / "a.json")["b"] == 1);
  write_text(folder / "bad.json", "{");
  CHECK(says(error_text(error_id::file_format, [&] { mixbit::read_json_file(folder / "bad.json"); }), "bad.json'"));
  CHECK(says(error_text(error_id::file_open, [&] { mixbit::read_json_file(folder / "no.json"); }), "no.json'"));
  CHECK(says(error_text(error_id::file_format, [&] { mixbit::write_json_file(folder / "x.json", "\xff"); }), "x.json'",
             "not UTF-8"));
  CHECK(listing(folder.path()) == std::set<std::string>{"a.json", "bad.json"});
}

}  // namespace
