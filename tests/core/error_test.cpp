#include "mixbit/core/error.hpp"

#include <doctest/doctest.h>

#include "mixbit/config/json.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("error: what a terminal obeys, or turns text around by, is written out in UTF-8 too") {
  auto const message = [](std::string const& text) {
    return std::string{error{error_id::config_value, text}.message()};
  };
  CHECK(message("\xc2\x9b" "2J \xc2\x80 \xc2\xa0") == "\\xc2\\x9b" "2J \\xc2\\x80 \xc2\xa0");
  CHECK(message("\xe2\x80\xa8 \xe2\x80\xae \xe2\x80\xaf") == "\\xe2\\x80\\xa8 \\xe2\\x80\\xae \xe2\x80\xaf");
  CHECK(message("\xe2\x81\xa6 \xe2\x81\xa9 \xe2\x81\xaa") == "\\xe2\\x81\\xa6 \\xe2\\x81\\xa9 \xe2\x81\xaa");
  CHECK(message("\xe2\x80") == "\xe2\x80");  // cut short
  CHECK(message("\xc2") == "\xc2");
  CHECK(message("\xe2\x82\xac \xf0\x9f\x98\x80 \xc3\xa9") == "\xe2\x82\xac \xf0\x9f\x98\x80 \xc3\xa9");
}

TEST_CASE("error: a message is one line, whatever is in it") {
  error const e{error_id::config_value, "layer 'a\nb': \x1b[31m \x7f got \"\xc3\xa9\t\""};
  CHECK(std::string{e.what()} == "[mixbit.101] layer 'a\\x0ab': \\x1b[31m \\x7f got \"\xc3\xa9\\x09\"");
  CHECK(e.message() == "layer 'a\\x0ab': \\x1b[31m \\x7f got \"\xc3\xa9\\x09\"");
  CHECK(in_quotes(std::string(300, 'x') + "\n") == "'" + std::string(300, 'x') + "...'");
}

TEST_CASE("error: so is one about a value of a config's text") {
  auto const text = error_text(error_id::config_value, [] {
    config_from_json(R"({"quant_cfg": [{"*": {"block_sizes": {"-1": 16, "scale_bits": "a\nb"}}}]})", "it");
  });
  CHECK(says(text, "scale_bits", "a\\x0ab"));
}
