// The chunks of a sum, at the lengths where their number or their size changes.
#include "mixbit/formats/summation.hpp"

#include <doctest/doctest.h>

using namespace mixbit;

TEST_CASE("sums: chunks are whole rounds of 32 lanes, of at least 1024 elements, and at most 512") {
  CHECK(formats::sum_chunk_length(1) == 1024);
  CHECK(formats::sum_chunk_length(512 * 1024) == 1024);
  for (std::int64_t const edge : {std::int64_t{512 * 1024}, std::int64_t{512 * 1056}, std::int64_t{1} << 33})
    for (std::int64_t n = edge - 1; n <= edge + 1; ++n) {
      std::int64_t const length = formats::sum_chunk_length(n);
      auto const chunks = [&](std::int64_t of) { return (n + of - 1) / of; };
      CAPTURE(n);
      CHECK(length % 32 == 0);
      CHECK(chunks(length) <= 512);
      CHECK((length == 1024 || chunks(length - 32) > 512));  // no shorter one would do
    }
}
