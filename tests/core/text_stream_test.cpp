#include "mixbit/core/text_stream.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <locale>
#include <sstream>

namespace {

template <class T>
void looks_as_in_a_stream(T value) {
  std::ostringstream theirs;
  theirs.imbue(std::locale::classic());
  mixbit::detail::text_stream ours;
  theirs << "<" << value << '>';
  ours << "<" << value << '>';
  CHECK(ours.take() == theirs.str());
}

}  // namespace

TEST_CASE("text_stream: writes what a stream of the classic locale writes") {
  double const infinity = std::numeric_limits<double>::infinity();
  for (double const x : {0.0, -0.0, 1.0, -2.5, 1.0 / 3, 123456.0, 1234567.0, 999999.5, 1e-4, 1.23456789e-5, 6.02e23,
                         1e300, 5e-324, infinity, -infinity})
    looks_as_in_a_stream(x);
  for (float const x : {0.1f, 16777216.0f, 3.4e38f}) looks_as_in_a_stream(x);
  for (std::int64_t const n : {std::int64_t{0}, std::int64_t{-7}, std::numeric_limits<std::int64_t>::min()})
    looks_as_in_a_stream(n);
  looks_as_in_a_stream(std::numeric_limits<std::uint64_t>::max());
  looks_as_in_a_stream(true);
  looks_as_in_a_stream('c');
  looks_as_in_a_stream(std::string{"a text"});
}
