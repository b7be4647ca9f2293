#include "mixbit/core/name_index.hpp"

#include <doctest/doctest.h>

#include <string>

using mixbit::detail::name_index;

TEST_CASE("name_index: the first place of a name stays, and names outlive what they were made of") {
  name_index places;
  CHECK(places.find("a") == name_index::none);
  {
    std::string const name = "layers.0.self_attn.q_proj";  // longer than a string holds in itself
    CHECK(places.add(name, 7) == 7);
  }
  CHECK(places.add("a", 3) == 3);
  CHECK(places.add("a", 4) == 3);
  CHECK(places.find("a") == 3);
  CHECK(places.find("layers.0.self_attn.q_proj") == 7);
  CHECK(places.find("layers.0.self_attn.q_pro") == name_index::none);
  CHECK(places.find("") == name_index::none);
  CHECK(places.contains("a"));
  CHECK_FALSE(places.contains("A"));
}
