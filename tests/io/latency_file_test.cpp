// A latency table from JSON and CSV, and what is refused of either.
#include "mixbit/io/latency_file.hpp"

#include <doctest/doctest.h>

#include <string>

#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

std::string latency_at(temporary_folder const& folder, std::string const& name, std::string const& text) {
  write_text(folder / name, text);
  return (folder / name).string();
}

std::string latency_refusal(std::string const& name, std::string const& text) {
  temporary_folder const folder;
  return error_text(error_id::file_content, [&] { (void)read_latency_table(latency_at(folder, name, text)); });
}

}  // namespace

TEST_CASE("latency file: JSON and CSV say the same") {
  temporary_folder const folder;
  auto const json = read_latency_table(
      latency_at(folder, "t.json", R"({"limit": 12.5, "latency": {"a.b": {"X": 1.25, "NONE": null}, "*": {"X": 3}}})"));
  auto const csv = read_latency_table(
      latency_at(folder, "t.csv", "group,format,microseconds\r\na.b,X,1.25\na.b,NONE,-\n\nlimit,,12.5\n*,X,3"));
  for (auto const* table : {&json, &csv}) {
    CHECK(table->limit == 12.5);
    CHECK(table->name.starts_with("'" + folder.path().string()));
    REQUIRE(table->entries.size() == 3);
    CHECK(table->entries[0].group == "a.b");
    CHECK(table->entries[0].format == "X");
    CHECK(table->entries[0].microseconds == 1.25);
    CHECK_FALSE(table->entries[1].microseconds.has_value());
    CHECK(table->entries[2].group == "*");
  }
  CHECK(csv.entries[1].where.ends_with("t.csv': line 3"));
  CHECK(json.entries[1].where.ends_with("t.json': latency.a.b.NONE"));
}

TEST_CASE("latency file: what is wrong is named with its place") {
  CHECK(says(latency_refusal("a.json", R"({"latency": {}})"), "a.json': needs 'limit', a number"));
  CHECK(says(latency_refusal("a.json", R"({"limit": "5", "latency": {}})"), "limit: must be a number, got \"5\""));
  CHECK(says(latency_refusal("a.json", R"({"limit": -5, "latency": {}})"), "limit: must be microseconds from 0", "-5"));
  CHECK(says(latency_refusal("a.json", R"({"limit": 5, "latency": {"g": [1]}})"), "latency.g: must be an object, got"));
  CHECK(says(latency_refusal("a.json", R"({"limit": 5, "latency": {"g": {"X": 1e13}}})"), "latency.g.X: must be mic"));
  CHECK(says(latency_refusal("a.csv", "g,X,1\n"), "needs a line 'limit,,MICROSECONDS'"));
  CHECK(says(latency_refusal("a.csv", "limit,,5\ng,X,1e\n"), "line 2: '1e' is not a number of microseconds"));
  CHECK(says(latency_refusal("a.csv", "limit,,5\ng,X\n"), "line 2: has 2 fields, not 3"));
  CHECK(says(latency_refusal("a.csv", "limit,,5\nlimit,,5\n"), "line 2: a second limit"));
  CHECK(says(latency_refusal("a.csv", "limit,,-\n"), "line 1: the limit is no number"));
}
