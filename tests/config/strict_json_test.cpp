#include "mixbit/config/strict_json.hpp"

#include <doctest/doctest.h>

#include <string>

#include "support/error_text.hpp"

namespace {

using mixbit::error_id;
using namespace mixbit::test;

mixbit::json_document parse(std::string const& text) {
  return mixbit::parse_json_strict(text, "'f.json'", error_id::file_format);
}

std::string refusal(std::string const& text) {
  return error_text(error_id::file_format, [&] { parse(text); });
}

TEST_CASE("strict json: values of every kind come back as they were, keys in their order") {
  std::string const text =
      R"({"z":[1,-2,18446744073709551615,0.5,true,false,null,"é\u0001\n\""],"a":{},"m":{"x":[],"y":[[{}]]}})";
  auto const value = parse(text);
  CHECK(value.dump() == text);
  CHECK(value["z"][2].is_number_unsigned());
  CHECK(parse(" 3 ") == 3);
  CHECK(parse(R"({"a":{"k":1},"b":{"k":2}})")["b"]["k"] == 2);  // equal keys in two objects
}

TEST_CASE("strict json: a key twice in one object is refused where it stands") {
  CHECK(says(refusal(R"({"a":1,"a":2})"), "[mixbit.502] 'f.json': the key 'a' appears twice"));
  CHECK(says(refusal(R"({"t":{"d":1,"e":2,"d":3}})"), "'f.json': the key 'd' appears twice in 't'"));
  CHECK(says(refusal(R"([{"t":{"u":[0,{"d":1,"d":3}]}}])"), "the key 'd' appears twice in 't' / 'u'"));
  CHECK(says(refusal(R"({"a":1,"\u0061":2})"), "the key 'a' appears twice"));
  CHECK(says(refusal("{\"a\\n\":1,\"a\\n\":2}"), "'a\\x0a' appears twice"));
}

TEST_CASE("strict json: text that is not JSON is refused, with the byte and the keys on the way") {
  CHECK(says(refusal(""), "'f.json': not JSON at byte"));
  CHECK(says(refusal(R"({"layer":{"shape":[1,}})"), "not JSON at byte 22", "in 'layer' / 'shape'"));
  for (char const* const bad :
       {"{", "[1", "{}x", "NaN", "[Infinity]", "{'a':1}", "[01]", "[1.]", "// c\n{}", "\"\xff\"", "\"\\ud800\"",
        "\"a\nb\"", "[1e999]", "{\"a\"}", "{\"a\":1,}", "tru"})
    CHECK_MESSAGE(says(refusal(bad), "'f.json': not JSON at byte "), bad);
  CHECK(says(refusal(std::string{"{}\0{", 4}), "a NUL at byte 2"));
}

TEST_CASE("strict json: depth is limited, so that hostile texts cost little") {
  auto const nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK_NOTHROW(parse(nested(64)));
  CHECK(says(refusal(nested(65)), "nested deeper than 64"));
  CHECK(says(refusal(std::string(5000000, '[')), "nested deeper than 64"));
}

TEST_CASE("strict json: a wide object takes linear time") {
  std::string text = "{";
  for (int i = 0; i < 100000; ++i) text += (i ? ",\"layer." : "\"layer.") + std::to_string(i) + "\":1";
  auto const value = parse(text + "}");  // quadratic: 5e9 comparisons, half a minute
  CHECK(value.size() == 100000);
  CHECK(value.items().begin().key() == "layer.0");
}

}  // namespace
