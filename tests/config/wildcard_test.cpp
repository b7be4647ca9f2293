#include "mixbit/config/wildcard.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <string>

#include "support/error_text.hpp"

using namespace mixbit;

TEST_CASE("stars and question marks") {
  CHECK(wildcard_match("*", ""));
  CHECK(wildcard_match("*", "a.b"));
  CHECK(wildcard_match("", ""));
  CHECK_FALSE(wildcard_match("", "a"));
  CHECK_FALSE(wildcard_match("?", ""));
  CHECK(wildcard_match("?", "."));
  CHECK(wildcard_match("*weight_quantizer", "layers.0.fc.weight_quantizer"));
  CHECK_FALSE(wildcard_match("*weight_quantizer", "layers.0.fc.weight_quantizer.0"));
  CHECK(wildcard_match("a*b*c", "abbc"));
  CHECK_FALSE(wildcard_match("a*b*c", "acb"));
  CHECK(wildcard_match("*ab", "aab"));
  CHECK(wildcard_match("**", "x"));
  CHECK_FALSE(wildcard_match("A*", "abc"));  // letters of one case only
}

TEST_CASE("classes, as Python's fnmatchcase has them") {
  CHECK(wildcard_match("layers.[01].x", "layers.1.x"));
  CHECK_FALSE(wildcard_match("layers.[01].x", "layers.2.x"));
  CHECK(wildcard_match("*[!o]_proj", "q_proj"));
  CHECK_FALSE(wildcard_match("*[!o]_proj", "o_proj"));
  CHECK(wildcard_match("[a-c]", "b"));
  CHECK_FALSE(wildcard_match("[a-c]", "d"));
  CHECK(wildcard_match("[!a-c]", "d"));
  CHECK(wildcard_match("[]a]", "]"));
  CHECK(wildcard_match("[]a]", "a"));
  CHECK_FALSE(wildcard_match("[]a]", "b"));
  CHECK(wildcard_match("[!]a]", "b"));
  CHECK_FALSE(wildcard_match("[!]a]", "]"));
  CHECK(wildcard_match("[a-]", "-"));
  CHECK(wildcard_match("[-a]", "-"));
  CHECK(wildcard_match("[--a]", "5"));          // from - to a
  CHECK(wildcard_match("[a-c-e]", "-"));        // a-c, then - and e
  CHECK_FALSE(wildcard_match("[a-c-e]", "d"));
  CHECK_FALSE(wildcard_match("[c-a]", "b"));    // upside down: empty
  CHECK(wildcard_match("[!c-a]", "b"));         // and its complement is everything
  CHECK(wildcard_match("[*]", "*"));
  CHECK_FALSE(wildcard_match("[*]", "a"));
  CHECK(wildcard_match("[a!]", "!"));
}

TEST_CASE("a bracket that is never closed is itself") {
  CHECK(wildcard_match("[", "["));
  CHECK(wildcard_match("a[b", "a[b"));
  CHECK_FALSE(wildcard_match("a[b", "ab"));
  CHECK(wildcard_match("[]", "[]"));
  CHECK(wildcard_match("[!]", "[!]"));
  CHECK(wildcard_match("*[", "x["));
}

TEST_CASE("bytes above 127 are compared as unsigned") {
  CHECK(wildcard_match("[\x80-\xff]", "\xc3"));
  CHECK_FALSE(wildcard_match("[a-z]", "\xc3"));
  CHECK(wildcard_match("[a-\xff]", "\xc3"));
}

TEST_CASE("many stars take no exponential time") {
  std::string many;
  for (int i = 0; i < 200; ++i) many += "*a";
  std::string const text(5000, 'a');
  auto const start = std::chrono::steady_clock::now();
  CHECK_FALSE(wildcard_match(many + "*b", text));
  CHECK(wildcard_match(many + "*", text));
  CHECK_FALSE(wildcard_match("*a*a*a*a*b", text));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds{2});
}

TEST_CASE("it is a constant expression") {
  static_assert(wildcard_match("*[kv]_bmm_quantizer", "attn.k_bmm_quantizer"));
  static_assert(!wildcard_match("*[kv]_bmm_quantizer", "attn.q_bmm_quantizer"));
}

TEST_CASE("an exact wildcard matches its text and no other") {
  for (char const* text : {"plain", "a*b", "a?b", "[ab]", "[!a]", "[]]", "]", "", "a[b", "*?[", "a-b", "!"}) {
    auto const wildcard = exact_wildcard(text);
    for (char const* other : {"plain", "a*b", "a?b", "[ab]", "[!a]", "[]]", "]", "", "a[b", "*?[", "a-b", "!", "axb",
                              "a", "b", "ab", "*", "x?["})
      CHECK_MESSAGE(wildcard_match(wildcard, other) == (std::string_view{text} == other), wildcard, ' ', other);
  }
  CHECK(exact_wildcard("blk[0]*") == "blk[[]0][*]");
}

TEST_CASE("a pattern is a wildcard or a callable") {
  pattern const wildcard = "*fc1*";
  CHECK(wildcard.matches("mlp.fc1.weight_quantizer"));
  CHECK(wildcard.is_wildcard());
  pattern const callable = [](std::string_view name) { return name.size() == 3; };
  CHECK(callable.matches("abc"));
  CHECK_FALSE(callable.matches("abcd"));
  CHECK_FALSE(callable.is_wildcard());
  CHECK(callable.label() == "<callable>");
  CHECK(pattern{[](std::string_view) { return true; }, "everything"}.label() == "everything");
  CHECK(wildcard == pattern{std::string{"*fc1*"}});
  CHECK_FALSE(callable == callable);
  CHECK(test::says(test::error_text(error_id::config_value, [] { pattern{nullptr, "gone"}; }), "gone", "empty"));
}
